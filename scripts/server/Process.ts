import { type ChildProcess, spawn } from "node:child_process"
import * as RunningProcess from "@merkato/infra/runtime/RunningProcess"

const isGone = async (started: RunningProcess.RunningProcess, withinMs: number) => {
  const until = Date.now() + withinMs
  for (; RunningProcess.isRunning(started); await Bun.sleep(50)) if (Date.now() > until) return false
  return true
}

/** Milliseconds in which a server that is told to stop stops. */
const stopWithinMs = 30_000

/** Asks a process to stop, and ends it when it does not. */
export const stop = async (started: RunningProcess.RunningProcess): Promise<void> => {
  RunningProcess.signal(started, "SIGTERM")
  if (await isGone(started, stopWithinMs)) return
  RunningProcess.signal(started, "SIGKILL")
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

export interface Kept extends RunningProcess.RunningProcess {
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
  const started = RunningProcess.find(Number(await firstLine(child)))
  if (started === undefined) {
    child.stdin?.end()
    return undefined
  }
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
