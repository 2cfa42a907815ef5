/** Which cores a worker and its database server run on. */
import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"

/** Reads a list of cores as Linux writes it: `0-2,5`. */
export const parse = (list: string): ReadonlyArray<number> =>
  list
    .trim()
    .split(",")
    .filter((part) => part !== "")
    .flatMap((part) => {
      const [from = 0, to = from] = part.split("-").map(Number)
      return Array.from({ length: to - from + 1 }, (_, index) => from + index)
    })

/** Cores that this process may use; none where the system does not tell. */
const allowed = (): ReadonlyArray<number> => {
  try {
    return parse(/^Cpus_allowed_list:(.*)$/m.exec(readFileSync("/proc/self/status", "latin1"))?.[1] ?? "")
  } catch {
    return []
  }
}

/**
 * A core for each of so many workers; undefined for all unless there are as many as cores. A worker and its server take
 * turns: on one core neither has to be woken on another, a quarter of a run's time. Fewer workers than cores are better
 * off wherever there is room.
 */
export const ofWorkers = (workers: number, cores = allowed()): ReadonlyArray<number | undefined> =>
  Array.from({ length: workers }, (_, index) =>
    workers >= cores.length && cores.length > 1 ? cores[index % cores.length] : undefined
  )

/** Keeps a process, and those that it starts from now on, on a core. Where that is not possible, they run on any. */
export const keep = (pid: number, core: number): void =>
  void spawnSync("taskset", ["-a", "-c", "-p", String(core), String(pid)], { stdio: "ignore" })
