/** A process that can be told apart from a later one which was given the same pid. */
import { execFileSync } from "node:child_process"
import { existsSync, readFileSync, readlinkSync } from "node:fs"

export interface RunningProcess {
  readonly pid: number
  /** Boot and clock tick of the start, from /proc; elsewhere what `ps` says of it. Empty where the system does not tell. */
  readonly startedAt: string
}

const attempt = <A>(read: () => A): A | undefined => {
  try {
    return read()
  } catch {
    return undefined
  }
}

const hasProc = existsSync("/proc/self/stat")
const boot = attempt(() => readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()) ?? ""

/** Whether the pid stands for anything, a zombie too. A signal refused for lack of permission still found somebody. */
export const answers = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM"
  }
}

const ps = (pid: number, ...args: ReadonlyArray<string>) =>
  // In the same words and the same zone whoever asks.
  execFileSync("ps", [...args, "-p", String(pid)], {
    encoding: "utf8",
    env: { ...process.env, LC_ALL: "C", TZ: "UTC" }
  })

/** As `find`, where there is no /proc. */
const findByPs = (pid: number): RunningProcess | undefined => {
  if (!answers(pid)) return undefined
  const [state = "", ...start] = attempt(() => ps(pid, "-o", "stat=,lstart=").trim().split(/\s+/)) ?? []
  return state.startsWith("Z") ? undefined : { pid, startedAt: start.join(" ") }
}

/** The process that has this pid now. A zombie has ended: only its parent has not looked yet. */
export const find = (pid: number): RunningProcess | undefined => {
  if (!Number.isSafeInteger(pid) || pid <= 0) return undefined
  if (!hasProc) return findByPs(pid)
  const stat = attempt(() => readFileSync(`/proc/${pid}/stat`, "utf8"))
  if (stat === undefined) return answers(pid) ? { pid, startedAt: "" } : undefined
  // proc(5): "pid (name) state …"; the name may hold spaces and brackets, and the start time is field 22.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  if (fields[0] === "Z" || fields[0] === "X") return undefined
  return { pid, startedAt: `${boot} ${fields[19] ?? ""}` }
}

/** Whether it is still there. Where start times are unknown, any process with its pid counts. */
export const isRunning = ({ pid, startedAt }: RunningProcess): boolean => {
  const now = find(pid)
  return now !== undefined && (now.startedAt === startedAt || now.startedAt === "" || startedAt === "")
}

/** Sends a signal if it is still there. */
export const signal = (target: RunningProcess, name: NodeJS.Signals): void => {
  if (isRunning(target)) attempt(() => process.kill(target.pid, name))
}

/** Its arguments joined by spaces; empty when unknown. */
export const commandLine = ({ pid }: RunningProcess): string =>
  attempt(() =>
    hasProc
      ? readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").slice(0, -1).join(" ")
      : ps(pid, "-ww", "-o", "args=").trimEnd()
  ) ?? ""

/** Its working directory; undefined where the system does not tell. */
export const workingDirectory = ({ pid }: RunningProcess): string | undefined =>
  attempt(() => readlinkSync(`/proc/${pid}/cwd`))

export const self: RunningProcess = find(process.pid) ?? { pid: process.pid, startedAt: "" }
