import { Effect, Option, Schema, Stream } from "effect"
import { chunksOf } from "effect/Array"
import * as Ids from "@merkato/domain/kernel/Ids"
import type { Projection, Row } from "../projection/Projection.ts"
import { type Place, type RowStore, StoreUnavailable } from "../projection/RowStore.ts"
import { OpenSearch, type OpenSearchError, OpenSearchRefused, OpenSearchUnavailable } from "./OpenSearch.ts"

/** Rows sent, or read, at once. */
const together = 1_000

/** Milliseconds until what was written is found by searches, at most. */
const refreshMs = 500

export interface Shape {
  /** How each column is indexed, as OpenSearch's mappings have it. */
  readonly properties: Readonly<Record<string, object>>
  readonly analysis: object
}

/** Its name is that of the live rows; what is built anew has another one beside it. Readers search `live`. */
export const aliasesOf = (prefix: string, { name }: Projection): Readonly<Record<Place, string>> => ({
  live: `${prefix}${name}`,
  next: `${prefix}${name}_next`
})

const Written = Schema.Struct({
  items: Schema.Array(
    Schema.Struct({
      index: Schema.Struct({
        status: Schema.Int,
        error: Schema.optionalKey(Schema.Struct({ type: Schema.String, reason: Schema.NullOr(Schema.String) }))
      })
    })
  )
})
const RowValues = Schema.StructWithRest(Schema.Struct({ version: Schema.Int }), [
  Schema.Record(Schema.String, Schema.Union([Schema.String, Schema.Finite, Schema.Null]))
])
const Found = Schema.Struct({ docs: Schema.Array(Schema.Struct({ _source: Schema.optionalKey(RowValues) })) })
const Scanned = Schema.Struct({
  hits: Schema.Struct({
    hits: Schema.Array(Schema.Struct({ _source: RowValues, sort: Schema.Array(Schema.Unknown) }))
  })
})
const decodeWritten = Schema.decodeUnknownEffect(Written)
const decodeFound = Schema.decodeUnknownEffect(Found)
const decodeScanned = Schema.decodeUnknownEffect(Scanned)
const decodeAliases = Schema.decodeUnknownEffect(Schema.Record(Schema.String, Schema.Unknown))

const isMissing = (error: OpenSearchError): boolean => error instanceof OpenSearchRefused && error.status === 404

/**
 * Rows as documents of an index, one each, that replace each other by version: OpenSearch refuses a document whose version
 * is not higher than that of the one it has. Therefore every event has to know all columns. What it refuses otherwise is a
 * mistake of ours, and dies.
 */
export const make = Effect.fnUntraced(function* (projection: Projection, { properties, analysis }: Shape) {
  const { ask, prefix } = yield* OpenSearch
  if (Object.keys(projection.once).length > 0) {
    return yield* Effect.die(new Error(`${projection.name} has columns that not every event knows`))
  }
  const aliases = aliasesOf(prefix, projection)
  const keys = Object.keys(projection.key)
  const idOf = (row: Row) => keys.map((column) => String(row[column])).join("/")

  const away = <A, R>(effect: Effect.Effect<A, OpenSearchError | Schema.SchemaError, R>) =>
    effect.pipe(
      Effect.catchTags({
        OpenSearchUnavailable: ({ cause }) => Effect.fail(new StoreUnavailable({ server: "OpenSearch", cause })),
        OpenSearchRefused: Effect.die,
        SchemaError: Effect.die
      })
    )

  /** The indexes behind a name. */
  const behind = (alias: string) =>
    ask({ method: "GET", path: `_alias/${alias}` }).pipe(
      Effect.catchIf(isMissing, () => Effect.succeed({})),
      Effect.flatMap(decodeAliases),
      Effect.map(Object.keys)
    )

  const abandon = Effect.flatMap(behind(aliases.next), (indexes) =>
    Effect.forEach(
      indexes,
      (index) => Effect.catchIf(ask({ method: "DELETE", path: index }), isMissing, () => Effect.void),
      { discard: true }
    )
  )

  const begin = Effect.gen(function* () {
    yield* abandon
    const index = `${aliases.live}-${(yield* Ids.next).toLowerCase()}`
    yield* ask({
      method: "PUT",
      path: index,
      body: {
        settings: {
          number_of_shards: 1,
          auto_expand_replicas: "0-1",
          // Also where nobody searches for a while.
          refresh_interval: `${refreshMs}ms`,
          analysis
        },
        mappings: { dynamic: "strict", properties },
        aliases: { [aliases.next]: {} }
      }
    })
  })

  const writeSome = Effect.fnUntraced(function* (alias: string, rows: ReadonlyArray<Row>) {
    const body = rows.flatMap((row) => [
      {
        index: {
          _index: alias,
          _id: idOf(row),
          version: row.version,
          version_type: "external",
          require_alias: true
        }
      },
      row
    ])
    const { items } = yield* Effect.flatMap(ask({ method: "POST", path: "_bulk", body }), decodeWritten)
    let there = true
    for (const { index } of items) {
      // 409: it has this version, or a later one.
      if (index.error === undefined || index.status === 409) continue
      const { type, reason } = index.error
      if (index.status === 429 || index.status >= 500) {
        return yield* new OpenSearchUnavailable({ cause: new Error(`${type}: ${reason}`) })
      }
      if (index.status !== 404) {
        return yield* new OpenSearchRefused({ status: index.status, kind: type, reason: reason ?? "" })
      }
      there = false
    }
    return there
  })

  return {
    server: "OpenSearch",
    isBuilt: away(Effect.map(behind(aliases.live), (indexes) => indexes.length > 0)),
    begin: away(begin),
    write: Effect.fnUntraced(function* (place, rows) {
      for (const some of chunksOf(rows, together)) {
        if (!(yield* away(writeSome(aliases[place], some)))) return false
      }
      return true
    }),
    find: (place, wanted) =>
      wanted.length === 0
        ? Effect.succeed([])
        : ask({ method: "POST", path: `${aliases[place]}/_mget`, body: { ids: wanted.map(idOf) } }).pipe(
            Effect.flatMap(decodeFound),
            Effect.map(({ docs }) => docs.flatMap(({ _source }) => (_source === undefined ? [] : [_source]))),
            away
          ),
    scan: (place) =>
      Stream.unwrap(
        Effect.as(
          away(ask({ method: "POST", path: `${aliases[place]}/_refresh` })),
          Stream.paginate<ReadonlyArray<unknown>, ReadonlyArray<Row>, StoreUnavailable>([], (after) =>
            ask({
              method: "POST",
              path: `${aliases[place]}/_search`,
              body: {
                size: together,
                sort: keys.map((column) => ({ [column]: "asc" })),
                ...(after.length === 0 ? {} : { search_after: after })
              }
            }).pipe(
              Effect.flatMap(decodeScanned),
              Effect.map(({ hits: { hits } }) => {
                const last = hits.length < together ? undefined : hits.at(-1)?.sort
                return [[hits.map(({ _source }) => _source)], Option.fromUndefinedOr(last)] as const
              }),
              away
            )
          )
        )
      ),
    swap: away(
      Effect.gen(function* () {
        const [next] = yield* behind(aliases.next)
        if (next === undefined) return yield* Effect.die(new Error(`Nothing is built of ${projection.name}`))
        const live = yield* behind(aliases.live)
        yield* ask({ method: "POST", path: `${next}/_refresh` })
        yield* ask({
          method: "POST",
          path: "_aliases",
          body: {
            actions: [
              ...live.map((index) => ({ remove_index: { index } })),
              { remove: { index: next, alias: aliases.next } },
              { add: { index: next, alias: aliases.live } }
            ]
          }
        })
      })
    ),
    abandon: away(abandon)
  } satisfies RowStore
})
