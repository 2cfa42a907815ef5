import { Context, Schema } from "effect"
import { Rpc } from "effect/rpc"
import { ServiceUnavailable } from "@merkato/domain/kernel/Problem"

/**
 * Whether an operation only reads. A query ends with its caller; a command belongs to the context that runs it, and a
 * caller that goes away merely stops waiting for its answer.
 */
export const IsQuery = Context.Reference<boolean>("merkato/rpc/IsQuery", { defaultValue: () => false })

interface Shape<
  Payload extends Schema.Struct.Fields,
  Success extends Schema.Top,
  Errors extends ReadonlyArray<Schema.Top>
> {
  readonly payload: Payload
  readonly success: Success
  readonly errors: Errors
}

/** An operation that changes something. Each can also fail with `ServiceUnavailable`. */
export const command = <
  const Tag extends string,
  Payload extends Schema.Struct.Fields,
  Success extends Schema.Top,
  const Errors extends ReadonlyArray<Schema.Top>
>(
  tag: Tag,
  { payload, success, errors }: Shape<Payload, Success, Errors>
) => Rpc.make(tag, { payload, success, error: Schema.Union([...errors, ServiceUnavailable]) })

/** An operation that only reads. */
export const query = <
  const Tag extends string,
  Payload extends Schema.Struct.Fields,
  Success extends Schema.Top,
  const Errors extends ReadonlyArray<Schema.Top>
>(
  tag: Tag,
  shape: Shape<Payload, Success, Errors>
) => command(tag, shape).annotate(IsQuery, true)

/** A page of a list: the items, and what to ask with for the next ones (null at the end). */
export const page = <Item extends Schema.Top>(item: Item) =>
  Schema.Struct({ items: Schema.Array(item), nextCursor: Schema.NullOr(Schema.String) })

/** Which ones a list of many is asked for at a time: at most 100. */
export const idsOf = <Id extends Schema.Top>(id: Id) => Schema.Array(id).check(Schema.isMaxLength(100))

/** How lists are asked for: at most 100 items a page (contracts: REST), and a cursor from the page before. */
export const paging = {
  limit: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100 })),
  cursor: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(512)))
}
