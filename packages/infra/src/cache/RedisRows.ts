import { Clock, Data, Effect, Option, Stream } from "effect"
import { chunksOf } from "effect/Array"
import { Redis } from "effect/persistence"
import { columnsOf, type ColumnType, type Projection, type Row, type Value } from "../projection/Projection.ts"
import { type Place, type RowStore, StoreUnavailable } from "../projection/RowStore.ts"

/** Rows that are written with one script, and keys that are read with one: others wait as long. */
const together = 200

/** How long a Redis that hangs is waited for; and for the exchange of all rows, which is one script. */
const patience = { usual: "5 seconds", swap: "30 seconds" } as const

export interface Shape {
  /** What the names of the keys of live rows begin with: `inventory:` for `inventory:{productId}`. */
  readonly prefix: string
  /** The column with the moment from which on a row counts for nothing, if there is one: it is not kept for longer. */
  readonly until?: string
}

/**
 * Columns of which one event alone knows the value are set once, the others by a higher version. A key of which every row has
 * its end is forgotten with the last of them. A row without a known end is kept: it may be the memory that a sale was
 * called off.
 */
const write = Redis.script(
  (state: string, place: Place, prefix: string, ending: "" | "1", rows: string) => [state, place, prefix, ending, rows],
  {
    numberOfKeys: 1,
    lua: `
      local state, place, prefix, ending = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
      if redis.call('HEXISTS', state, place) == 0 then return 0 end
      for _, row in ipairs(cjson.decode(ARGV[4])) do
        local key = prefix .. row.partition
        redis.call('SADD', state .. ':' .. place, row.partition)
        for i = 1, #row.once, 2 do redis.call('HSETNX', key, row.at .. row.once[i], row.once[i + 1]) end
        local known = redis.call('HGET', key, row.at .. 'version')
        if not known or tonumber(known) < row.version then
          redis.call('HSET', key, row.at .. 'version', row.version)
          for i = 1, #row.latest, 2 do
            local field, value = row.at .. row.latest[i], row.latest[i + 1]
            if value == cjson.null then redis.call('HDEL', key, field) else redis.call('HSET', key, field, value) end
          end
        end
        if ending == '1' then
          local rows, ends, last = 0, 0, 0
          local fields = redis.call('HGETALL', key)
          for i = 1, #fields, 2 do
            local column = string.match(fields[i], '[^.]*$')
            if column == 'version' then rows = rows + 1 end
            if column == 'forgotten_at' then
              ends = ends + 1
              last = math.max(last, tonumber(fields[i + 1]))
            end
          end
          if rows == ends then
            redis.call('PEXPIREAT', key, string.format('%.0f', last))
          else
            redis.call('PERSIST', key)
          end
        end
      end
      return 1`
  }
).withReturnType<number>()

/** The fields of keys, all of the same moment. */
const read = Redis.script((state: string, prefix: string, partitions: string) => [state, prefix, partitions], {
  numberOfKeys: 1,
  lua: `
    local found = {}
    for i, partition in ipairs(cjson.decode(ARGV[2])) do found[i] = redis.call('HGETALL', ARGV[1] .. partition) end
    return found`
}).withReturnType<ReadonlyArray<unknown>>()

/** Throws away what is built, and says who builds now; nobody, where there is no name. */
const clear = Redis.script((state: string, prefix: string, server: string) => [state, prefix, server], {
  numberOfKeys: 1,
  lua: `
    local state, prefix, server = KEYS[1], ARGV[1], ARGV[2]
    for _, partition in ipairs(redis.call('SMEMBERS', state .. ':next')) do redis.call('UNLINK', prefix .. partition) end
    redis.call('UNLINK', state .. ':next')
    if server == '' then redis.call('HDEL', state, 'next') else redis.call('HSET', state, 'next', server) end`
})

const swap = Redis.script((state: string, live: string, next: string) => [state, live, next], {
  numberOfKeys: 1,
  lua: `
    local state, live, next = KEYS[1], ARGV[1], ARGV[2]
    local server = redis.call('HGET', state, 'next')
    if not server then return 0 end
    for _, partition in ipairs(redis.call('SDIFF', state .. ':live', state .. ':next')) do
      redis.call('UNLINK', live .. partition)
    end
    for _, partition in ipairs(redis.call('SMEMBERS', state .. ':next')) do
      if redis.call('EXISTS', next .. partition) == 1 then
        redis.call('RENAME', next .. partition, live .. partition)
      else
        redis.call('UNLINK', live .. partition)
      end
    end
    redis.call('UNLINK', state .. ':live')
    if redis.call('EXISTS', state .. ':next') == 1 then redis.call('RENAME', state .. ':next', state .. ':live') end
    redis.call('HSET', state, 'live', server)
    redis.call('HDEL', state, 'next')
    return 1`
}).withReturnType<number>()

/** A hash comes as a flat list from a script, and as whatever the client makes of it otherwise. */
const flatOf = (hash: unknown): ReadonlyArray<unknown> => {
  if (Array.isArray(hash)) return hash
  if (hash instanceof Map) return [...hash].flat()
  return typeof hash === "object" && hash !== null ? Object.entries(hash).flat() : []
}

const isText = (value: unknown): value is string => typeof value === "string"

const valueOf = (type: ColumnType, text: string | undefined): Value => {
  if (text === undefined) return null
  return type === "bigint" || type === "integer" ? Number(text) : text
}

/** The rows of a key, from its fields: `<rest of the row's key>.<column>`, or the column alone where there is no rest. */
export const rowsOf = (projection: Projection, partition: string, hash: unknown): ReadonlyArray<Row> => {
  const [first = "", ...rest] = Object.keys(projection.key)
  const columns = columnsOf(projection)
  const byRow = new Map<string, Map<string, string>>()
  const flat = flatOf(hash).filter(isText)
  for (let nth = 0; nth + 1 < flat.length; nth += 2) {
    const [field = "", text = ""] = [flat[nth], flat[nth + 1]]
    const at = field.slice(0, field.lastIndexOf(".") + 1)
    const row = byRow.get(at) ?? new Map<string, string>()
    byRow.set(at, row.set(field.slice(at.length), text))
  }
  return [...byRow].map(([at, row]) => {
    const others = at.split("/").map((part, nth, parts) => (nth === parts.length - 1 ? part.slice(0, -1) : part))
    return {
      ...Object.fromEntries(Object.entries(columns).map(([column, type]) => [column, valueOf(type, row.get(column))])),
      [first]: partition,
      ...Object.fromEntries(rest.map((column, nth) => [column, others[nth] ?? null])),
      version: Number(row.get("version") ?? 0)
    }
  })
}

/**
 * Rows of a projection in Redis. Those with the same first column of their key are one hash, `<prefix><first column>`, with
 * fields `<rest of the key>.<column>`: a read of one key, of no script. Beside them is a hash `projection:<name>`, which says
 * what there is, and the sets of what is in each place.
 *
 * Redis may lose what it acknowledged last when it dies, or when another takes its place. So live rows are those of the
 * very process that they were built in: another one has none until they are built anew.
 *
 * The scripts touch keys that they are not told of beforehand, which a cluster of Redis does not allow.
 */
export const make = (projection: Projection, shape: Shape, redis: typeof Redis.Redis.Service): RowStore => {
  const state = stateOf(projection)
  const [first = "", ...rest] = Object.keys(projection.key)
  const prefixes: Readonly<Record<Place, string>> = { live: shape.prefix, next: `${state}:next:` }

  const away = <A, E, R>(effect: Effect.Effect<A, E, R>, within: keyof typeof patience = "usual") =>
    effect.pipe(
      Effect.timeout(patience[within]),
      Effect.mapError((cause) => new StoreUnavailable({ server: "Redis", cause }))
    )

  const partitionOf = (row: Row) => String(row[first])

  /** Columns and their texts, one after the other. */
  const fieldsOf = (row: Row, columns: Readonly<Record<string, ColumnType>>) =>
    Object.keys(columns).map((column) => {
      const value = row[column] ?? null
      return [column, value === null ? null : String(value)] as const
    })

  const written = (row: Row) => {
    const once = fieldsOf(row, projection.once).filter(([, value]) => value !== null)
    const until = shape.until === undefined ? undefined : row[shape.until]
    return {
      partition: partitionOf(row),
      at: rest.length === 0 ? "" : `${rest.map((column) => String(row[column])).join("/")}.`,
      version: row.version,
      once: [...once, ...(isText(until) ? [["forgotten_at", String(Date.parse(until))]] : [])].flat(),
      latest: fieldsOf(row, projection.latest).flat()
    }
  }

  const readAll = Effect.fnUntraced(function* (place: Place, partitions: ReadonlyArray<string>) {
    if (partitions.length === 0) return []
    const found = yield* away(redis.eval(read)(state, prefixes[place], JSON.stringify(partitions)))
    return partitions.flatMap((partition, nth) => rowsOf(projection, partition, found[nth]))
  })

  return {
    server: "Redis",
    isBuilt: away(isBuilt(projection, redis)),
    begin: away(Effect.flatMap(serverOf(redis), (server) => redis.eval(clear)(state, prefixes.next, server))),
    write: Effect.fnUntraced(function* (place, rows) {
      for (const some of chunksOf(rows, together)) {
        const ending = shape.until === undefined ? "" : "1"
        const texts = JSON.stringify(some.map(written))
        if ((yield* away(redis.eval(write)(state, place, prefixes[place], ending, texts))) === 0) return false
      }
      return true
    }),
    find: Effect.fnUntraced(function* (place, wanted) {
      const found: Array<Row> = []
      for (const some of chunksOf(new Set(wanted.map(partitionOf)), together))
        found.push(...(yield* readAll(place, some)))
      const identity = (row: Row) => JSON.stringify([first, ...rest].map((column) => row[column]))
      const keys = new Set(wanted.map(identity))
      return found.filter((row) => keys.has(identity(row)))
    }),
    scan: (place) =>
      Stream.paginate<string, ReadonlyArray<Row>, StoreUnavailable>(
        "0",
        Effect.fnUntraced(function* (cursor) {
          const [next = "0", partitions] = yield* away(
            redis.send<readonly [string, ReadonlyArray<string>]>(
              "SSCAN",
              `${state}:${place}`,
              cursor,
              "COUNT",
              String(together)
            )
          )
          const rows = yield* readAll(place, partitions)
          return [[rows], next === "0" ? Option.none() : Option.some(next)] as const
        })
      ),
    swap: Effect.gen(function* () {
      const done = yield* away(redis.eval(swap)(state, prefixes.live, prefixes.next), "swap")
      if (done === 0) return yield* Effect.die(new Error(`Nothing is built of ${projection.name}`))
    }),
    abandon: away(redis.eval(clear)(state, prefixes.next, ""))
  }
}

/** Where it is said what there is of a projection. */
const stateOf = ({ name }: Projection) => `projection:${name}`

/** The process of Redis that answers: another one after each start, and where another one took over. */
const serverOf = (redis: typeof Redis.Redis.Service) =>
  Effect.map(redis.send<string>("INFO", "server"), (about) => /^run_id:(\S+)/m.exec(about)?.[1] ?? "unknown")

/** Whether there are live rows that have lost nothing. */
const isBuilt = (projection: Projection, redis: typeof Redis.Redis.Service) =>
  Effect.map(
    Effect.all([serverOf(redis), redis.send<string | null>("HGET", stateOf(projection), "live")], { concurrency: 2 }),
    ([server, live]) => live === server
  )

/** There are no live rows that can be trusted: they are being built, or nobody has begun to. */
export class NotBuilt extends Data.TaggedError("NotBuilt") {}

/** How long it is believed that live rows are still there; so long may they be wrong after Redis has lost some. */
const believedMs = 1_000

/** Reads the live rows of some keys, all of the same moment. One trip, and another one every second. */
export const reader = (projection: Projection, shape: Shape, redis: typeof Redis.Redis.Service) => {
  let believedUntil = 0
  const believing = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    if (now < believedUntil) return
    if (!(yield* isBuilt(projection, redis))) return yield* new NotBuilt()
    believedUntil = now + believedMs
  })
  const hashes = (partitions: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<unknown>, Redis.RedisError> => {
    const [one] = partitions
    if (one === undefined || partitions.length > 1) {
      return redis.eval(read)(stateOf(projection), shape.prefix, JSON.stringify(partitions))
    }
    return Effect.map(redis.send<unknown>("HGETALL", shape.prefix + one), (hash) => [hash])
  }
  return (partitions: ReadonlyArray<string>) =>
    Effect.andThen(believing, hashes(partitions)).pipe(
      Effect.map((found) => partitions.flatMap((partition, nth) => rowsOf(projection, partition, found[nth]))),
      Effect.tapError(() => Effect.sync(() => (believedUntil = 0)))
    )
}
