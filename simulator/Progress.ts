import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs"

interface Recorded {
  readonly commands: number
  /** Seeds that are done, as ranges, both ends included. */
  readonly done: ReadonlyArray<readonly [from: number, to: number]>
  readonly broken: ReadonlyArray<{ readonly seed: number; readonly invariants: ReadonlyArray<string> }>
}

/**
 * How far a campaign has come, in a file, so that it can go on after a break and the seed range is on record. Seeds that broke
 * something are not done: whoever goes on runs them again, so that a campaign ends well only when all of its seeds did.
 */
export class Progress {
  private readonly done = new Set<number>()
  private readonly broken = new Map<number, ReadonlyArray<string>>()

  constructor(
    private readonly file: string | undefined,
    private readonly commands: number
  ) {
    if (file === undefined || !existsSync(file)) return
    const recorded = JSON.parse(readFileSync(file, "utf8")) as Recorded
    if (recorded.commands !== commands) throw new Error(`${file} is of runs with ${recorded.commands} commands`)
    for (const [from, to] of recorded.done) for (let seed = from; seed <= to; seed++) this.done.add(seed)
    for (const { seed, invariants } of recorded.broken) this.broken.set(seed, invariants)
  }

  /** Whether it was run, and broke nothing. */
  has(seed: number): boolean {
    return this.done.has(seed) && !this.broken.has(seed)
  }

  record(seed: number, invariants: ReadonlyArray<string>): void {
    this.done.add(seed)
    if (invariants.length > 0) this.broken.set(seed, invariants)
    else this.broken.delete(seed)
    if (this.file === undefined) return
    const broken = [...this.broken].map(([seed, invariants]) => ({ seed, invariants }))
    const recorded: Recorded = { commands: this.commands, done: ranges([...this.done]), broken }
    writeFileSync(`${this.file}.new`, `${JSON.stringify(recorded, undefined, 2)}\n`)
    renameSync(`${this.file}.new`, this.file)
  }
}

/** Numbers as ranges of neighbours. */
export const ranges = (numbers: ReadonlyArray<number>): ReadonlyArray<readonly [from: number, to: number]> => {
  const found: Array<readonly [number, number]> = []
  for (const number of numbers.toSorted((a, b) => a - b)) {
    const last = found.at(-1)
    if (last !== undefined && number <= last[1] + 1) found[found.length - 1] = [last[0], number]
    else found.push([number, number])
  }
  return found
}
