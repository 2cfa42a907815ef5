import { afterAll, describe, expect, test } from "bun:test"
import { Context, Effect, Exit, Layer, Logger, Redacted, Scope } from "effect"
import { SqlClient } from "effect/sql"
import { mkdtempSync, rmSync, unlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import * as Database from "../src/postgres/Database.ts"
import * as Migrations from "../src/postgres/Migrations.ts"
import * as TestDatabase from "../src/postgres/TestDatabase.ts"

const folders: Array<string> = []
afterAll(() => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })))

/** A folder of migrations that may be added to. */
const folderOf = (files: Readonly<Record<string, string>>) => {
  const path = mkdtempSync(join(tmpdir(), "merkato-migrations-"))
  folders.push(path)
  const add = (more: Readonly<Record<string, string>>) => {
    for (const [name, text] of Object.entries(more)) writeFileSync(join(path, name), text)
  }
  add(files)
  return { url: pathToFileURL(path), path, add, remove: (name: string) => unlinkSync(join(path, name)) }
}

const processOn = (url: Redacted.Redacted) => Database.layer({ url, maxConnections: 2, applicationName: "migrations" })

/** On an empty database. `another` is a process more. */
const onDatabase = <A>(
  test: (
    another: Effect.Effect<Context.Context<SqlClient.SqlClient>, unknown, Scope.Scope>
  ) => Effect.Effect<A, unknown, SqlClient.SqlClient | Scope.Scope>
): Promise<A> =>
  Effect.gen(function* () {
    const { url } = yield* TestDatabase.fresh
    const another = Layer.build(Layer.fresh(processOn(url)))
    return yield* Effect.provide(test(another), processOn(url))
  }).pipe(Effect.scoped, Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false), Effect.runPromise)

const tablesOf = Effect.fnUntraced(function* (schema: string) {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<{
    name: string
  }>`select tablename as name from pg_tables where schemaname = ${schema} order by 1`
  return rows.map(({ name }) => name)
})
const applied = Effect.fnUntraced(function* (schema: string, table = "migrations") {
  const sql = yield* SqlClient.SqlClient
  return yield* sql<{ id: number; name: string; at: Date }>`
    select migration_id as id, name, created_at as at from ${sql(`${schema}.${table}`)} order by 1`
})
const exists = Effect.fnUntraced(function* (schema: string) {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql`select from pg_namespace where nspname = ${schema}`
  return rows.length > 0
})

const jars = `
-- Jars; this is a comment with a semicolon;
create table jars (
  jar text primary key,
  note text not null default 'a; b' -- kept
);
create index jars_note on jars (note);
insert into jars (jar) values ('plum'), ('fig');
`

describe("migrations", () => {
  test("make the schema, its tables and what is in them, each file once and in order", () =>
    onDatabase(() =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const { url } = folderOf({
          "0002_lids.sql": "create table lids (jar text references jars);\ninsert into lids values ('fig');",
          "0001_jars.sql": jars
        })
        yield* Migrations.run({ schema: "pantry", folder: url, common: false })
        expect(yield* tablesOf("pantry")).toEqual(["jars", "lids", "migrations"])
        expect(yield* sql`select jar, note from pantry.jars order by jar`).toEqual([
          { jar: "fig", note: "a; b" },
          { jar: "plum", note: "a; b" }
        ])
        expect((yield* applied("pantry")).map(({ id, name }) => [id, name])).toEqual([
          [101, "jars"],
          [102, "lids"]
        ])
        expect(yield* tablesOf("public")).toEqual([])
        const [path] = yield* sql<{ search_path: string }>`show search_path`
        expect(path?.search_path).not.toContain("pantry")
      })
    ))

  test("give a context the tables that every context has", () =>
    onDatabase(() =>
      Effect.gen(function* () {
        yield* Migrations.run({ schema: "pantry", folder: undefined, common: true })
        expect(yield* tablesOf("pantry")).toEqual(expect.arrayContaining(["events", "idempotency", "inbox", "outbox"]))
      })
    ))

  test("change nothing when they run again", () =>
    onDatabase((another) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const { url } = folderOf({ "0001_jars.sql": jars })
        const migrate = Migrations.run({ schema: "pantry", folder: url, common: true })
        yield* migrate
        yield* sql`delete from pantry.jars where jar = 'fig'`
        const before = yield* applied("pantry")
        yield* migrate
        yield* Effect.provideContext(migrate, yield* another)
        expect(yield* applied("pantry")).toEqual(before)
        expect(yield* sql`select jar from pantry.jars`).toEqual([{ jar: "plum" }])
      })
    ))

  test("that are new are applied to what is there, and only they", () =>
    onDatabase(() =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const { url, add } = folderOf({ "0001_jars.sql": jars })
        const migrate = Migrations.run({ schema: "pantry", folder: url, common: true })
        yield* migrate
        add({ "0002_filled.sql": "alter table jars add column filled boolean not null default true;" })
        yield* migrate
        expect(yield* sql`select jar, filled from pantry.jars order by 1`).toEqual([
          { jar: "fig", filled: true },
          { jar: "plum", filled: true }
        ])
      })
    ))

  test("of the tables every context has can be added where a context has its own, also where one table told of both", () =>
    onDatabase(() =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const { url } = folderOf({ "0001_jars.sql": jars })
        const migrate = Migrations.run({ schema: "pantry", folder: url, common: true })
        yield* migrate
        const whole = [yield* applied("pantry"), yield* applied("pantry", "common_migrations")]
        // As it was before the second file, and before the second table.
        yield* sql`alter table pantry.events alter column payload set statistics -1`
        yield* sql`insert into pantry.migrations select * from pantry.common_migrations where migration_id = 1`
        yield* sql`drop table pantry.common_migrations`
        yield* migrate
        const again = [yield* applied("pantry"), yield* applied("pantry", "common_migrations")]
        const names = (tables: typeof whole) => tables.map((rows) => rows.map(({ id, name }) => ({ id, name })))
        expect(names(again)).toEqual(names(whole))
        expect(names(again)[1]?.length).toBeGreaterThan(1)
        expect(
          yield* sql`
            select distinct attstattarget as target from pg_attribute
            where attname = 'payload' and attrelid::regclass::text like 'pantry.events%'`
        ).toEqual([{ target: 0 }])
      })
    ))

  test("are applied once when many processes start at the same time, and all of them find the schema ready", () =>
    onDatabase((another) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const { url } = folderOf({ "0001_jars.sql": `${jars}\nselect pg_sleep(0.1);` })
        const start = Effect.gen(function* () {
          yield* Migrations.run({ schema: "pantry", folder: url, common: true })
          const own = yield* SqlClient.SqlClient
          return yield* own<{ count: number }>`select count(*) as count from pantry.jars`
        })
        const counts = yield* Effect.forEach(
          [1, 2, 3, 4, 5],
          () => Effect.flatMap(another, (process) => Effect.provideContext(start, process)),
          { concurrency: 5 }
        )
        expect(counts).toEqual([1, 2, 3, 4, 5].map(() => [{ count: 2 }]))
        expect(yield* sql`select count(*) as count from pantry.jars`).toEqual([{ count: 2 }])
      })
    ))

  test("of different schemas do not wait for each other", () =>
    onDatabase((another) =>
      Effect.gen(function* () {
        const slow = folderOf({ "0001_slow.sql": "select pg_sleep(2);" })
        const quick = folderOf({ "0001_jars.sql": jars })
        yield* Effect.forkScoped(
          Effect.provideContext(Migrations.run({ schema: "cellar", folder: slow.url, common: false }), yield* another)
        )
        yield* Effect.sleep("100 millis")
        const begun = performance.now()
        yield* Migrations.run({ schema: "pantry", folder: quick.url, common: false })
        expect(performance.now() - begun).toBeLessThan(1_500)
        expect(yield* exists("cellar")).toBe(false)
      })
    ))

  test("leave nothing behind when one fails, and say which and why", () =>
    onDatabase(() =>
      Effect.gen(function* () {
        const { url, add } = folderOf({
          "0001_jars.sql": jars,
          "0002_lids.sql":
            "create table lids (jar text);\ninsert into shelves values (1);\ncreate table never (a text);"
        })
        const migrate = Migrations.run({ schema: "pantry", folder: url, common: true })
        const failed = yield* Effect.flip(migrate)
        expect(failed.message).toContain("lids")
        expect(Bun.inspect(failed)).toContain("shelves")
        expect(yield* exists("pantry")).toBe(false)

        add({ "0002_lids.sql": "create table lids (jar text);" })
        yield* migrate
        expect(yield* tablesOf("pantry")).toEqual(expect.arrayContaining(["events", "jars", "lids"]))
      })
    ))

  test("that fail leave alone what earlier ones have made", () =>
    onDatabase(() =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const { url, add } = folderOf({ "0001_jars.sql": jars })
        const migrate = Migrations.run({ schema: "pantry", folder: url, common: false })
        yield* migrate
        add({
          "0002_empty.sql": "delete from jars;\nalter table jars drop column note;",
          "0003_wrong.sql": "alter table jars add column jar text;"
        })
        const failed = yield* Effect.exit(migrate)
        expect(Exit.isFailure(failed)).toBe(true)
        expect(yield* sql`select jar, note from pantry.jars order by 1`).toHaveLength(2)
        expect((yield* applied("pantry")).map(({ id }) => id)).toEqual([101])
      })
    ))

  const wrong: Readonly<Record<string, readonly [files: ReadonlyArray<string>, told: RegExp]>> = {
    "a name without a number": [["jars.sql"], /jars\.sql is not named NNNN_name\.sql/],
    "a number of three digits": [["001_jars.sql"], /001_jars\.sql is not named NNNN_name\.sql/],
    "a name that is none": [["0001_ja-rs.sql"], /0001_ja-rs\.sql is not named NNNN_name\.sql/],
    "the same number twice": [["0001_jars.sql", "0001_lids.sql"], /0001_lids\.sql stands where 0002 should/],
    "a number left out": [["0001_jars.sql", "0003_lids.sql"], /0003_lids\.sql stands where 0002 should/],
    "a beginning other than 1": [["0000_jars.sql"], /0000_jars\.sql stands where 0001 should/]
  }
  for (const [what, [files, told]] of Object.entries(wrong)) {
    test(`with ${what} are refused, with the file named, before anything is done`, () =>
      onDatabase(() =>
        Effect.gen(function* () {
          const { url } = folderOf(Object.fromEntries(files.map((file) => [file, "create table a (a text);"])))
          const failed = yield* Effect.flip(Migrations.run({ schema: "pantry", folder: url, common: true }))
          expect(failed).toBeInstanceOf(Migrations.BadMigrations)
          expect(failed.message).toMatch(told)
          expect(failed.message).toContain(url.pathname)
          expect(yield* exists("pantry")).toBe(false)
        })
      ))
  }

  test("from a folder that is not there are refused", () =>
    onDatabase(() =>
      Effect.gen(function* () {
        const { url, path } = folderOf({})
        rmSync(path, { recursive: true })
        const failed = yield* Effect.flip(Migrations.run({ schema: "pantry", folder: url, common: false }))
        expect(failed).toBeInstanceOf(Migrations.BadMigrations)
        expect(failed.message).toContain(path)
      })
    ))

  test("take no notice of what is no SQL beside them", () =>
    onDatabase(() =>
      Effect.gen(function* () {
        const { url } = folderOf({
          "0001_jars.sql": jars,
          "README.md": "drop table jars;",
          "0002_draft.sql~": "nonsense"
        })
        yield* Migrations.run({ schema: "pantry", folder: url, common: false })
        expect(yield* tablesOf("pantry")).toEqual(["jars", "migrations"])
      })
    ))
})
