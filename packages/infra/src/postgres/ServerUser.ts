/** As whom Postgres runs: it refuses to be root, so root lends it another user. */
import { Effect } from "effect"
import { execFile } from "node:child_process"
import { readFileSync, statSync } from "node:fs"
import { dirname } from "node:path"

export interface ServerUser {
  readonly name: string
  readonly uid: number
  readonly gid: number
}

/** A clean environment: no PG* variable of the caller reaches the server, and its clock is UTC. */
export const environment = { PATH: "/usr/local/bin:/usr/bin:/bin", TZ: "UTC" }

/** What `child_process` needs to become that user; nothing for the user that we are. */
export const identity = (user: ServerUser | undefined) => (user === undefined ? {} : { uid: user.uid, gid: user.gid })

const accounts = (): ReadonlyArray<ServerUser> =>
  readFileSync("/etc/passwd", "utf8")
    .split("\n")
    .map((line) => line.split(":"))
    .map(([name = "", , uid, gid]) => ({
      name,
      uid: Number(uid),
      gid: Number(gid)
    }))

/**
 * Undefined when the process is not root: Postgres then runs as the process's own user. For root it is the user who
 * owns the existing cluster, so that a folder can be used by root and by that user in turn, and else `nobody`.
 */
export const choose = (cluster: string): ServerUser | undefined => {
  if (process.getuid?.() !== 0) return undefined
  const owner = statSync(cluster, { throwIfNoEntry: false })
  if (owner !== undefined && owner.uid !== 0) {
    const name = accounts().find(({ uid }) => uid === owner.uid)?.name
    return { name: name ?? String(owner.uid), uid: owner.uid, gid: owner.gid }
  }
  return accounts().find(({ name }) => name === "nobody") ?? { name: "nobody", uid: 65_534, gid: 65_534 }
}

/** Runs a program to its end as that user. Interruption kills it. */
export const run = (user: ServerUser | undefined, file: string, args: ReadonlyArray<string>) =>
  Effect.callback<{ readonly ok: boolean; readonly output: string }>((resume, signal) => {
    execFile(
      file,
      [...args],
      { ...identity(user), cwd: "/", env: environment, signal, maxBuffer: 16 * 1024 * 1024 },
      (error, stdout, stderr) => {
        const said = `${stdout}${stderr}`
        resume(Effect.succeed({ ok: error === null, output: said === "" && error !== null ? error.message : said }))
      }
    )
  })

/** The topmost folder on the way to `path` that this user may not enter, asked of the kernel (there may be ACLs). */
export const shutOutAt = Effect.fnUntraced(function* (user: ServerUser, path: string) {
  const way = [path]
  for (let folder = path; folder !== dirname(folder); folder = dirname(folder)) way.unshift(dirname(folder))
  const script = 'for folder do [ -x "$folder" ] || { printf "%s" "$folder"; exit 1; }; done'
  const asked = yield* run(user, "/bin/sh", ["-c", script, "sh", ...way])
  return asked.ok ? undefined : asked.output
})
