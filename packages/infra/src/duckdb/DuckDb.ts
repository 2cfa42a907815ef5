/** An analytical database in memory, for work on Parquet files. */
import { Effect, Schema, type Scope } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { readFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** A statement that DuckDB refuses or cannot finish; the reason is its own. */
export class QueryFailed extends Schema.TaggedError<QueryFailed>()("QueryFailed", { reason: Schema.String }) {
  override get message() {
    return this.reason
  }
}

/** A value of a row: numbers that a double cannot hold are text, times are RFC 3339. */
export type Value = string | number | boolean | null | ReadonlyArray<Value> | { readonly [name: string]: Value }
export type Row = Readonly<Record<string, Value>>

export interface DuckDb {
  readonly run: (sql: string) => Effect.Effect<void, QueryFailed>
  readonly rows: (sql: string) => Effect.Effect<ReadonlyArray<Row>, QueryFailed>
  /** Puts rows into a table, whose columns they have in their order. */
  readonly fill: (
    table: string,
    rows: ReadonlyArray<ReadonlyArray<string | number>>
  ) => Effect.Effect<void, QueryFailed>
  /** A table, or a select in brackets, as a Parquet file. */
  readonly parquet: (rows: string) => Effect.Effect<Uint8Array, QueryFailed>
}

const settings = {
  memory_limit: "512MB",
  threads: "2",
  // What is not built in is not fetched from anywhere.
  autoinstall_known_extensions: "false",
  autoload_known_extensions: "false"
}

const failed = (error: unknown) =>
  new QueryFailed({ reason: (error instanceof Error ? error.message : String(error)).replace(/^\w+ Error: /, "") })

const plain = (value: unknown): Value => {
  switch (typeof value) {
    case "bigint":
      return Number.isSafeInteger(Number(value)) ? Number(value) : String(value)
    case "string":
    case "boolean":
      return value
    case "number":
      return Number.isFinite(value) ? value : String(value)
    case "object":
      if (value === null) return null
      if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString()
      if (Array.isArray(value)) return value.map(plain)
      return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, plain(each)]))
    default:
      return value === undefined ? null : String(value)
  }
}

/** A day is a day, not its midnight. */
const valueOf = (value: unknown, type: string): Value =>
  type === "DATE" && value instanceof Date ? value.toISOString().slice(0, 10) : plain(value)

/** A name or text as SQL has it. */
export const quoted = (text: string): string => `'${text.replaceAll("'", "''")}'`

/**
 * Opens a database that goes with the scope. DuckDB is loaded here and not before: who has no use for it does without its
 * 60 MB of memory.
 */
export const open: Effect.Effect<DuckDb, QueryFailed, Scope.Scope> = Effect.gen(function* () {
  const { DuckDBInstance } = yield* Effect.promise(() => import("@duckdb/node-api"))
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "merkato-duckdb-"))),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
  )
  const attempt = <A>(work: () => Promise<A>) => Effect.tryPromise({ try: work, catch: failed })
  const instance = yield* Effect.acquireRelease(
    attempt(() => DuckDBInstance.create(":memory:", { ...settings, temp_directory: join(folder, "spilled") })),
    (instance) => Effect.sync(() => instance.closeSync())
  )
  const connection = yield* Effect.acquireRelease(
    attempt(() => instance.connect()),
    (connection) => Effect.sync(() => connection.closeSync())
  )
  // A statement that is not waited for any more is stopped before its database is closed.
  const asked = <A>(work: () => Promise<A>) =>
    Effect.callback<A, QueryFailed>((resume) => {
      const running = work()
      const ended = running.then(
        (value) => resume(Effect.succeed(value)),
        (error: unknown) => resume(Effect.fail(failed(error)))
      )
      return Effect.promise(() => {
        connection.interrupt()
        return ended
      })
    })
  yield* asked(() => connection.run("set timezone = 'UTC'"))
  const written = join(folder, "written.parquet")
  return {
    run: (sql) => Effect.asVoid(asked(() => connection.run(sql))),
    parquet: (rows) =>
      asked(async () => {
        await connection.run(`copy ${rows} to ${quoted(written)} (format parquet, compression zstd)`)
        return await readFile(written)
      }),
    rows: (sql) =>
      Effect.map(
        asked(() => connection.runAndReadAll(sql)),
        (reader) => {
          const columns = reader
            .columnTypes()
            .map((type, nth) => ({ name: reader.columnName(nth), type: String(type) }))
          return reader
            .getRowsJS()
            .map((row) => Object.fromEntries(columns.map(({ name, type }, nth) => [name, valueOf(row[nth], type)])))
        }
      ),
    fill: (table, rows) =>
      asked(async () => {
        const appender = await connection.createAppender(table)
        for (const row of rows) {
          for (const value of row) {
            if (typeof value === "string") appender.appendVarchar(value)
            else appender.appendBigInt(BigInt(value))
          }
          appender.endRow()
        }
        appender.closeSync()
      })
  }
})
