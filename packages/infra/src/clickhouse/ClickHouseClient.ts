import { ClickHouseError as ServerError, ClickHouseLogLevel, createClient, TupleParam } from "@clickhouse/client-web"
import { Effect, Schema, type Scope } from "effect"
import { ClickHouse, type ClickHouseError, ClickHouseUnavailable, NoSuchTable, type Parameter } from "./ClickHouse.ts"

export interface Options {
  /** Without user, password and database. */
  readonly url: string
  readonly username: string
  readonly password: string
  /** Of lower case letters, digits and _. */
  readonly database: string
}

/** Milliseconds after which nobody waits for an answer any more; who has less time says so himself. */
const patienceMs = 10_000

/** ClickHouse's numbers for what passes by itself in no case: syntax, names, types, rights. */
const refused: ReadonlySet<string> = new Set(
  [
    16, // no such column in the table
    27, // cannot parse the input
    36, // bad arguments
    43, // illegal type of argument
    46, // unknown function
    47, // unknown identifier
    53, // type mismatch
    62, // syntax error
    115, // unknown setting
    117, // incorrect data
    184, // illegal aggregation
    386, // no common type
    456, // unknown query parameter
    457, // bad query parameter
    497 // access denied
  ].map(String)
)

/** Unknown table, table is dropped. */
const noTable: ReadonlySet<string> = new Set(["60", "218"])

const attempt = <A>(ask: (signal: AbortSignal) => Promise<A>): Effect.Effect<A, ClickHouseError> =>
  Effect.tryPromise({
    try: ask,
    catch: (cause) =>
      cause instanceof ServerError && noTable.has(cause.code)
        ? new NoSuchTable({ cause })
        : new ClickHouseUnavailable({ cause })
  }).pipe(
    Effect.timeout(patienceMs),
    Effect.catchTag("TimeoutError", (cause) => Effect.fail(new ClickHouseUnavailable({ cause }))),
    Effect.catchIf(({ cause }) => cause instanceof ServerError && refused.has(cause.code), Effect.die)
  )

/** As the client wants it. */
const formatted = (parameter: Parameter): unknown => {
  if (typeof parameter !== "object") return parameter
  return "tuple" in parameter ? new TupleParam(parameter.tuple.map(formatted)) : parameter.map(formatted)
}

const Rows = Schema.Array(Schema.Record(Schema.String, Schema.Unknown))
const decode = Schema.decodeUnknownEffect(Rows)

/** A client, closed with its scope; none that speaks to a database. */
const clientOf = ({ url, username, password }: Options, database?: string) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      createClient({
        url,
        username,
        password,
        ...(database === undefined ? {} : { database }),
        application: "merkato",
        request_timeout: patienceMs,
        log: { level: ClickHouseLogLevel.OFF },
        clickhouse_settings: {
          // What is acknowledged is in the table, not in a buffer before it.
          async_insert: 0,
          date_time_input_format: "best_effort",
          date_time_output_format: "iso",
          output_format_json_quote_64bit_integers: 0
        }
      })
    ),
    (client) => Effect.promise(() => client.close())
  )

/** Connects, and makes the database where there is none. */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<typeof ClickHouse.Service, ClickHouseError, Scope.Scope> {
  const { database } = options
  yield* Effect.scoped(
    Effect.gen(function* () {
      const client = yield* clientOf(options)
      const known = yield* attempt(async (abort_signal) => {
        const answer = await client.query({
          query: "select name from system.databases where name = {database:String}",
          query_params: { database },
          format: "JSONEachRow",
          abort_signal
        })
        return answer.json()
      })
      if (known.length > 0) return
      yield* attempt((abort_signal) =>
        client.command({ query: `create database if not exists ${database}`, abort_signal })
      )
    })
  )
  const client = yield* clientOf(options, database)
  return ClickHouse.of({
    select: (query, parameters = {}) =>
      attempt(async (abort_signal) => {
        const query_params = Object.fromEntries(
          Object.entries(parameters).map(([name, value]) => [name, formatted(value)])
        )
        const answer = await client.query({ query, query_params, format: "JSONEachRow", abort_signal })
        return answer.json()
      }).pipe(Effect.flatMap((rows) => Effect.orDie(decode(rows)))),
    insert: (table, values) =>
      Effect.asVoid(
        attempt((abort_signal) => client.insert({ table, values: [...values], format: "JSONEachRow", abort_signal }))
      ),
    command: (query) => Effect.asVoid(attempt((abort_signal) => client.command({ query, abort_signal })))
  })
})
