import { describe, expect, test } from "bun:test"
import { faultNames } from "../kernel/Faults.ts"
import type { Outcome, Problem } from "../Run.ts"
import { replay, type Settings } from "../Settings.ts"
import { shrink } from "../Shrink.ts"

const outcome = (seed: number, invariants: ReadonlyArray<string>): Outcome => ({
  seed,
  hash: "",
  problems: invariants.map((invariant): Problem => ({ invariant, details: [] })),
  topology: "",
  counts: { kill: 3, pause: 1, replyLost: 2 },
  answers: {},
  trace: [],
  cpuMs: 0,
  ms: 0
})

const whole: Settings = { seed: 5, commands: 60, without: [], alone: false, trace: true }

/** A shop that breaks promises as told, and how often it was run. */
const shop = (broken: (does: (command: number) => boolean, meets: (fault: string) => boolean) => Array<string>) => {
  const told = { runs: 0 }
  const run = async ({ only, seed, without }: Settings) => {
    told.runs += 1
    const does = (command: number) => only === undefined || only.includes(command)
    return outcome(
      seed,
      broken(does, (fault) => !without.some((left) => left === fault))
    )
  }
  return { run, told }
}

describe("what breaks is made smaller", () => {
  test("down to the commands and the fault that it takes, and is told as a command", async () => {
    const { run } = shop((does, meets) => (does(7) && does(23) && meets("kill") ? ["money is taken once"] : []))
    const smallest = await shrink(run, whole, outcome(5, ["money is taken once"]))
    expect(smallest.only).toEqual([7, 23])
    // Of those that happened.
    expect(smallest.without.toSorted()).toEqual(["pause", "replyLost"])
    expect(replay(smallest)).toMatch(
      /^bun run simulate --seed 5 --commands 60 --trace --only 7,23 --without (pause,replyLost|replyLost,pause)$/
    )
  })

  test("as long as it is the same promise that is broken", async () => {
    const { run } = shop((does) => [...(does(40) ? ["money is taken once"] : []), "something else"])
    const smallest = await shrink(run, whole, outcome(5, ["money is taken once"]))
    expect(smallest.only).toEqual([40])
    expect(smallest.without).toEqual([...faultNames])
  })

  test("with an end: what cannot be made smaller is told as it is", async () => {
    const { run, told } = shop((_, meets) => (faultNames.every(meets) ? ["money is taken once"] : []))
    const broken = outcome(5, ["money is taken once"])
    const smallest = await shrink(run, { ...whole, only: [1, 2] }, broken)
    expect([smallest.without, smallest.only]).toEqual([[], []])
    expect(replay(smallest)).toBe("bun run simulate --seed 5 --commands 60 --trace --only=")
    const { told: stubborn, run: never } = shop(() => [])
    expect(await shrink(never, { ...whole, commands: 1_000 }, broken)).toEqual({
      ...whole,
      commands: 1_000,
      trace: false
    })
    expect([told.runs < 70, stubborn.runs]).toEqual([true, 70])
  })
})
