import { readdirSync, readFileSync } from "node:fs"

/** MiB that a process takes up in memory, what it shares with others counted in shares (PSS). Linux only; 0 elsewhere. */
const of = (pid: number): number => {
  try {
    return Number(/^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "latin1"))?.[1] ?? 0) / 1_024
  } catch {
    return 0
  }
}

const parentOf = (pid: string): number => {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1")
    return Number(text.slice(text.lastIndexOf(")") + 2).split(" ")[1])
  } catch {
    return 0
  }
}

/** The same of a process and those it started (Postgres' backends). */
export const ofTree = (pid: number): number => {
  try {
    const children = readdirSync("/proc").filter((name) => /^\d+$/.test(name) && parentOf(name) === pid)
    return children.reduce((sum, child) => sum + of(Number(child)), of(pid))
  } catch {
    return 0
  }
}
