import { readdirSync, readFileSync } from "node:fs"
import { Data, Effect } from "effect"
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

/** Ids of a context's own files begin here: both kinds were in one table before those every context has could change. */
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

const ownTable = "migrations"
const commonTable = "common_migrations"

/** Moves what was done of the common files to their own table, in a schema that was made when there was one for both. */
const ownTableOfCommon = Effect.fnUntraced(function* (schema: string) {
  const sql = yield* SqlClient.SqlClient
  const [both, apart] = [sql(`${schema}.${ownTable}`), sql(`${schema}.${commonTable}`)]
  const [found] = yield* sql<{ old: boolean }>`
    select to_regclass(${`${schema}.${ownTable}`}) is not null and to_regclass(${`${schema}.${commonTable}`}) is null as old`
  if (found?.old !== true) return
  yield* sql`create table ${apart} (like ${both} including all)`
  yield* sql`
    with moved as (delete from ${both} where migration_id < ${ownFrom} returning *)
    insert into ${apart} select * from moved`
})

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
  const inCommon = options.common ? yield* readFolder(common) : []
  const own = options.folder === undefined ? [] : yield* readFolder(options.folder)
  const pending = (files: ReadonlyArray<MigrationFile>, offset: number, table: string) =>
    Migrator.make({})({
      loader: Effect.succeed(files.map(toMigration(options.schema, offset))),
      table: `${options.schema}.${table}`
    })
  const lock = sql`select pg_advisory_xact_lock(hashtext('merkato.migrations.' || ${options.schema}))`
  yield* sql.withTransaction(
    Effect.gen(function* () {
      yield* lock
      yield* sql`create schema if not exists ${sql(options.schema)}`
      if (options.common) {
        yield* ownTableOfCommon(options.schema)
        yield* pending(inCommon, 0, commonTable)
      }
      yield* pending(own, ownFrom, ownTable)
    })
  )
})
