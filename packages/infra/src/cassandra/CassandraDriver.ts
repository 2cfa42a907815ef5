import { auth, Client, errors, policies, types } from "cassandra-driver"
import { Effect, type Scope } from "effect"
import { Cassandra, CassandraUnavailable, type Row, type Rows, type Statement } from "./Cassandra.ts"
import { placesOf } from "./CassandraRows.ts"

export interface Options {
  /** `host:port` each. */
  readonly contactPoints: ReadonlyArray<string>
  readonly localDataCenter: string
  readonly keyspace: string
  readonly credentials: { readonly username: string; readonly password: string } | undefined
}

/** Milliseconds: for a connection to come about, for an answer, and between attempts to reach a node that is away. */
const limits = { connectMs: 2_000, readMs: 5_000, reconnectMs: 500 } as const

/** Statements under way at a time. */
const together = 64

/** Syntax and shape of a statement, and rights: nothing that passes by itself. A table that is gone was replaced, though. */
const refused: ReadonlySet<number> = new Set([
  types.responseErrorCodes.syntaxError,
  types.responseErrorCodes.invalid,
  types.responseErrorCodes.configError
])

const isRefused = (error: unknown): boolean =>
  error instanceof errors.ArgumentError ||
  (error instanceof errors.ResponseError && refused.has(error.code) && !/unconfigured table/i.test(error.message))

const attempt = <A>(ask: () => Promise<A>): Effect.Effect<A, CassandraUnavailable> =>
  Effect.tryPromise({ try: ask, catch: (cause) => new CassandraUnavailable({ cause }) }).pipe(
    Effect.catchIf(({ cause }) => isRefused(cause), Effect.die)
  )

const rowOf = (row: types.Row): Row => Object.fromEntries(row.keys().map((column) => [column, row[column]]))

/** What a write tells has no rows, whatever the driver's types say. */
const partOf = ({
  rows,
  pageState
}: {
  readonly rows?: ReadonlyArray<types.Row>
  readonly pageState: string | null
}): Rows => ({
  rows: (rows ?? []).map(rowOf),
  next: pageState ?? undefined
})

/** Connects, and makes the keyspace where there is none: with one copy of each row, which is for one node. */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<typeof Cassandra.Service, CassandraUnavailable, Scope.Scope> {
  const { keyspace, credentials } = options
  const client = yield* Effect.acquireRelease(
    Effect.sync(
      () =>
        new Client({
          contactPoints: [...options.contactPoints],
          localDataCenter: options.localDataCenter,
          ...(credentials === undefined
            ? {}
            : { authProvider: new auth.PlainTextAuthProvider(credentials.username, credentials.password) }),
          encoding: { useBigIntAsLong: true },
          policies: { reconnection: new policies.reconnection.ConstantReconnectionPolicy(limits.reconnectMs) },
          queryOptions: { consistency: types.consistencies.localQuorum, prepare: true },
          socketOptions: { connectTimeout: limits.connectMs, readTimeout: limits.readMs }
        })
    ),
    (client) => Effect.promise(() => client.shutdown().catch(() => {}))
  )
  yield* attempt(() => client.connect())
  const known = yield* attempt(() =>
    client.execute("select keyspace_name from system_schema.keyspaces where keyspace_name = ?", [keyspace])
  )
  if (known.rowLength === 0) {
    yield* attempt(() =>
      client.execute(
        `create keyspace if not exists ${keyspace} with replication = {'class': 'SimpleStrategy', 'replication_factor': 1}`,
        [],
        { prepare: false }
      )
    )
  }
  const places = `create table if not exists ${placesOf(keyspace)} (name text primary key, live text, next text)`
  yield* attempt(() => client.execute(places, [], { prepare: false }))

  /** What changes the schema is not prepared. */
  const prepare = (cql: string) => !/^\s*(create|drop)\b/i.test(cql)

  const page = (statement: Statement, size: number, from: string | undefined) =>
    attempt(() =>
      client.execute(statement.cql, [...statement.values], {
        prepare: prepare(statement.cql),
        fetchSize: size,
        ...(from === undefined ? {} : { pageState: from })
      })
    ).pipe(Effect.map(partOf))

  const run = (statement: Statement) => Effect.map(page(statement, 5_000, undefined), ({ rows }) => rows)

  return Cassandra.of({
    keyspace,
    run,
    runAll: (statements) => Effect.forEach(statements, run, { concurrency: together }),
    page
  })
})
