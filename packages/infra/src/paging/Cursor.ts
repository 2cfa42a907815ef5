import { Effect, Schema } from "effect"
import { InvalidValue } from "@merkato/domain/kernel/Problem"

/** Which page of a list is wanted. */
export interface Paging {
  readonly limit: number
  readonly cursor?: string
}

export interface Page<A> {
  readonly items: ReadonlyArray<A>
  /** Of the next page; null when there is none. */
  readonly nextCursor: string | null
}

/**
 * Cursors of lists: where the page before ended, opaque to the caller. Keyset, never offset, so a page costs the same
 * wherever it is and nothing is shown twice when rows come in between.
 */
export const make = <A, I>(place: Schema.Codec<A, I>) => {
  const json = Schema.fromJsonString(place)
  const encodeJson = Schema.encodeSync(json)
  const decodeJson = Schema.decodeUnknownEffect(json)
  return {
    encode: (value: A): string => Buffer.from(encodeJson(value)).toString("base64url"),
    /** `undefined` for the first page; a cursor that we did not make is an `InvalidValue`. */
    decode: (cursor: string | undefined): Effect.Effect<A | undefined, InvalidValue> =>
      cursor === undefined
        ? Effect.undefined
        : decodeJson(Buffer.from(cursor, "base64url").toString("utf8")).pipe(
            Effect.mapError(() => new InvalidValue({ path: "cursor", reason: "not a cursor of this list" }))
          )
  }
}

/** Cuts a page out of `limit + 1` rows; the extra row tells that there are more. */
export const page = <A>(rows: ReadonlyArray<A>, limit: number, cursorOf: (last: A) => string): Page<A> => {
  const items = rows.slice(0, limit)
  const last = items.at(-1)
  return { items, nextCursor: rows.length > limit && last !== undefined ? cursorOf(last) : null }
}
