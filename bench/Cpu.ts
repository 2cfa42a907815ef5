import { readdirSync, readFileSync } from "node:fs"

/** Kernel ticks a second on Linux: 100 on every platform Bun runs on. */
const ticks = 100

const statOf = (pid: number): ReadonlyArray<string> | undefined => {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1")
    return text.slice(text.lastIndexOf(")") + 2).split(" ")
  } catch {
    return undefined
  }
}

/** CPU seconds a process has used, its ended children included. */
const used = (pid: number): number =>
  (statOf(pid)
    ?.slice(11, 15)
    .reduce((sum, value) => sum + Number(value), 0) ?? 0) / ticks

/** CPU seconds of a process and of those it started (Postgres' backends). Linux only; 0 elsewhere. */
export const ofTree = (pid: number): number => {
  let sum = used(pid)
  try {
    for (const name of readdirSync("/proc")) {
      const child = Number(name)
      if (Number.isInteger(child) && Number(statOf(child)?.[1]) === pid) sum += used(child)
    }
  } catch {
    return 0
  }
  return sum
}
