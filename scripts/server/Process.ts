import { existsSync, readFileSync } from "node:fs"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"

/** A process that was started once, told from another one that got its number later. */
export interface Started {
  readonly pid: number
  readonly birth: string
}

/** When a process was born; none when it is gone, or dead and only not yet buried. */
export const birthOf = (pid: number): string | undefined => {
  if (existsSync("/proc/self/stat")) {
    try {
      // The name is in brackets and may hold anything; the state follows it, and the birth is 19 fields later.
      const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
        .replace(/^.*\) /s, "")
        .split(" ")
      return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[19]
    } catch {
      return undefined
    }
  }
  const [state = "Z", ...birth] = spawnSync("ps", ["-o", "stat=,lstart=", "-p", String(pid)])
    .stdout.toString()
    .trim()
    .split(/\s+/)
  return state.startsWith("Z") || birth.length === 0 ? undefined : birth.join(" ")
}

export const isAlive = ({ pid, birth }: Started): boolean => birthOf(pid) === birth

const kill = (started: Started, signal: NodeJS.Signals) => {
  try {
    if (isAlive(started)) process.kill(started.pid, signal)
  } catch {
    // Gone in between.
  }
}

const isGone = async (started: Started, withinMs: number) => {
  for (const until = Date.now() + withinMs; isAlive(started); await Bun.sleep(50)) if (Date.now() > until) return false
  return true
}

/** Milliseconds in which a server that is told to stop stops. */
const stopWithinMs = 30_000

/** Asks a process to stop, and ends it when it does not. */
export const stop = async (started: Started): Promise<void> => {
  kill(started, "SIGTERM")
  if (await isGone(started, stopWithinMs)) return
  kill(started, "SIGKILL")
  await isGone(started, 5_000)
}

/**
 * Starts the server and stays with it until it is told that all went well: when whoever starts it dies before, its end of
 * the pipe closes, and the server goes too. With an owner it stays for good, and ends the server when the owner is gone.
 */
const keeper = `
owner=$1 log=$2; shift 2
"$@" </dev/null >>"$log" 2>&1 &
server=$!
echo "$server"
exec >/dev/null 2>&1
if ! read -r word; then kill -9 "$server"; exit 1; fi
[ "$owner" = 0 ] && exit 0
exec </dev/null
while kill -0 "$owner" && kill -0 "$server"; do sleep 1; done
kill -9 "$server"
`

export interface Kept extends Started {
  /** The server outlives this process from now on. */
  readonly letGo: () => Promise<void>
  readonly end: () => Promise<void>
}

const firstLine = (child: ChildProcess) =>
  new Promise<string>((resolve) => {
    let text = ""
    child.stdout?.on("data", (chunk) => {
      text += String(chunk)
      if (text.includes("\n")) resolve(text.trim())
    })
    child.once("exit", () => resolve(text.trim()))
  })

/** Starts a program in a session of its own, so that Ctrl-C here does not reach it; its output goes to `log`. */
export const start = async (
  command: ReadonlyArray<string>,
  options: {
    readonly log: string
    readonly environment: Readonly<Record<string, string>>
    /** A process without which the server is not wanted. */
    readonly owner: number | undefined
    readonly cwd: string
  }
): Promise<Kept | undefined> => {
  const child = spawn("sh", ["-c", keeper, "sh", String(options.owner ?? 0), options.log, ...command], {
    cwd: options.cwd,
    env: { ...process.env, ...options.environment },
    detached: true,
    stdio: ["pipe", "pipe", "ignore"]
  })
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()))
  const pid = Number(await firstLine(child))
  const birth = birthOf(pid)
  if (birth === undefined) {
    child.stdin?.end()
    return undefined
  }
  const started = { pid, birth }
  return {
    ...started,
    letGo: async () => {
      await new Promise<void>((resolve) => child.stdin?.write("ready\n", () => resolve()))
      if (options.owner === undefined) await ended
      child.unref()
      child.stdin?.destroy()
      child.stdout?.destroy()
    },
    end: async () => {
      child.stdin?.end()
      await ended
      await stop(started)
    }
  }
}
