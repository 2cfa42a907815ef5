import { readdirSync, readFileSync } from "node:fs"
import { Data, Effect, Layer } from "effect"
import { Migrator, SqlClient } from "effect/sql"

/** A folder of numbered `.sql` files, or what it holds cannot be read as such. */
export class BadMigrations extends Data.TaggedError("BadMigrations")<{
  readonly folder: string
  readonly reason: string
}> {
  override get message() {
    return `${this.folder}: ${this.reason}`
  }
}

interface MigrationFile {
  readonly id: number
  readonly name: string
  readonly statements: ReadonlyArray<string>
}

/** Reads `0001_name.sql` files; statements end with a semicolon at the end of a line. */
const readFolder = (folder: URL): Effect.Effect<ReadonlyArray<MigrationFile>, BadMigrations> =>
  Effect.try({
    try: () =>
      readdirSync(folder)
        .filter((file) => file.endsWith(".sql"))
        .toSorted()
        .map((file, index) => {
          const [, id, name] = /^(\d{4})_(\w+)\.sql$/.exec(file) ?? []
          if (id === undefined || name === undefined) throw new Error(`${file} is not named NNNN_name.sql`)
          // A number that is left out, and filled in later, would never run where a higher one has run.
          if (Number(id) !== index + 1)
            throw new Error(`${file} stands where ${String(index + 1).padStart(4, "0")} should`)
          const text = readFileSync(new URL(file, `${folder.href}/`), "utf8").replaceAll(/^\s*--.*$/gm, "")
          const statements = text
            .split(/;\s*$/m)
            .map((part) => part.trim())
            .filter((part) => part !== "")
          return { id: Number(id), name, statements }
        }),
    catch: (cause) => new BadMigrations({ folder: folder.pathname, reason: String(cause) })
  })

/** What every context has: events, outbox, inbox, idempotency. */
const common = new URL("./common", import.meta.url)

/** Ids of a context's own files begin here; those before belong to the tables every context has. */
const ownFrom = 100

const toMigration = (schema: string, offset: number) => (file: MigrationFile) =>
  [
    offset + file.id,
    file.name,
    Effect.succeed(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* sql`select set_config('search_path', ${schema}, true)`
        for (const statement of file.statements) yield* sql.unsafe(statement)
      })
    )
  ] as const satisfies Migrator.ResolvedMigration

/**
 * Brings a schema up to date: forward only, each file once, all pending ones in one transaction. Processes that start
 * together wait for each other.
 */
export const run = Effect.fn("Migrations.run")(function* (options: {
  readonly schema: string
  readonly folder: URL | undefined
  /** Whether the schema gets the tables that every context has. */
  readonly common: boolean
}) {
  const sql = yield* SqlClient.SqlClient
  const files = [
    ...(options.common ? (yield* readFolder(common)).map(toMigration(options.schema, 0)) : []),
    ...(options.folder === undefined
      ? []
      : (yield* readFolder(options.folder)).map(toMigration(options.schema, ownFrom)))
  ]
  const lock = sql`select pg_advisory_xact_lock(hashtext('merkato.migrations.' || ${options.schema}))`
  yield* sql.withTransaction(
    Effect.gen(function* () {
      yield* lock
      yield* sql`create schema if not exists ${sql(options.schema)}`
      yield* Migrator.make({})({ loader: Effect.succeed(files), table: `${options.schema}.migrations` })
    })
  )
})

export const layer = (options: Parameters<typeof run>[0]) => Layer.effectDiscard(run(options))
