import { Cause, Data, Effect, Predicate, Schema } from "effect"
import { Unauthenticated } from "@merkato/domain/kernel/Problem"
import { RequestContext } from "@merkato/domain/kernel/RequestContext"
import type { Refusal } from "@merkato/infra/graphql/Graph"
import { issuesOf, optionsOf, type Tagged, unauthenticatedOptions } from "../Problems.ts"

/** An argument is not what is expected: the code and the `errors` of REST. */
export class ValidationFailed extends Data.TaggedError("ValidationFailed")<{
  readonly errors: ReadonlyArray<{ readonly path: string; readonly message: string }>
}> {
  override get message() {
    return this.errors.map(({ path, message }) => (path === "" ? message : `${path}: ${message}`)).join("; ")
  }
}

/** Arguments as a schema has them. */
export const argumentsOf = <S extends Schema.Top & { readonly DecodingServices: never }>(schema: S) => {
  const decode = Schema.decodeUnknownEffect(schema)
  return (args: unknown): Effect.Effect<S["Type"], ValidationFailed> =>
    Effect.mapError(decode(args), (error) => new ValidationFailed({ errors: issuesOf(error) }))
}

const signInFirst = "Sign in first"

/** For fields about what is somebody's own: without a token they are refused, whatever else is asked. */
export const signedIn = Effect.flatMap(RequestContext, ({ principal }) =>
  principal.role === "anonymous" ? Effect.fail(new Unauthenticated({ reason: signInFirst })) : Effect.void
)

const isTagged = (error: unknown): error is Tagged => Predicate.isObject(error) && Predicate.hasProperty(error, "_tag")

/** A typed error as REST's problems tell it: the same code and members. */
const ofError = (error: Tagged, isStranger: boolean): Refusal => {
  // Who is nobody is first asked to say who they are.
  const isUnknown = error instanceof Unauthenticated || (error._tag === "Forbidden" && isStranger)
  const { code, detail, extensions, headers } = isUnknown ? unauthenticatedOptions(signInFirst) : optionsOf(error)
  const retryAfter = headers?.["retry-after"]
  return {
    code,
    detail,
    extensions: { ...extensions, ...(retryAfter === undefined ? {} : { retryAfterSeconds: Number(retryAfter) }) }
  }
}

/** A failure as clients are told; what nobody foresaw is reported and told without its innards. */
export const refusalOf = Effect.fnUntraced(function* (cause: Cause.Cause<unknown>): Effect.fn.Return<Refusal> {
  const { principal } = yield* RequestContext
  for (const reason of cause.reasons) {
    if (Cause.isFailReason(reason) && isTagged(reason.error)) {
      return ofError(reason.error, principal.role === "anonymous")
    }
  }
  if (!Cause.hasInterruptsOnly(cause)) {
    yield* Effect.logError("A field of the graph failed in a way that nobody foresaw", cause)
  }
  return { code: "internal", detail: "Something went wrong on our side" }
})

/** What stands in `extensions` of an error: the code of REST's problems, their members, and the trace to look for. */
export const extensionsOf = ({ code, extensions }: Refusal) =>
  Effect.map(RequestContext, ({ traceParent }) => ({ ...extensions, code, traceId: traceParent.slice(3, 35) }))
