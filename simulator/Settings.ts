import { faultNames, type Fault } from "./kernel/Faults.ts"

/** All that decides a run: the same settings are the same history. */
export interface Settings {
  readonly seed: number
  readonly commands: number
  /** Commands of the plan that are done, by number; all of them, when it is left out. */
  readonly only?: ReadonlyArray<number>
  /** Faults that do not happen. */
  readonly without: ReadonlyArray<Fault>
  /** One process with one connection to the database: no transaction ever overlaps another. */
  readonly alone: boolean
  /** Whether the history is kept line by line. */
  readonly trace: boolean
}

/** The one command that runs the same again. */
export const replay = ({ seed, commands, only, without, alone }: Settings): string =>
  [
    `bun run simulate --seed ${seed} --commands ${commands} --trace`,
    ...(alone ? ["--alone"] : []),
    ...(only === undefined ? [] : [only.length === 0 ? "--only=" : `--only ${only.join(",")}`]),
    ...(without.length === 0 ? [] : [`--without ${without.join(",")}`])
  ].join(" ")

const isFault = (name: string): name is Fault => faultNames.some((known) => known === name)

/** Reads `kill,pause`; throws what the user should read. */
export const parseFaults = (text: string): ReadonlyArray<Fault> =>
  text
    .split(",")
    .filter((name) => name !== "")
    .map((name) => {
      if (!isFault(name)) throw new Error(`There is no fault "${name}"; there are ${faultNames.join(", ")}`)
      return name
    })

/** Reads `3,17,25`; there has to be at least one. */
export const parseNumbers = (text: string): ReadonlyArray<number> =>
  text.split(",").map((part) => {
    const number = Number(part)
    if (!Number.isSafeInteger(number) || part.trim() === "") throw new Error(`"${part}" is not a whole number`)
    return number
  })
