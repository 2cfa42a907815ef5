import type { Outcome } from "./Run.ts"
import type { Settings } from "./Settings.ts"
import type { Fault } from "./kernel/Faults.ts"
import { faultNames } from "./kernel/Faults.ts"
import { real } from "./kernel/RealTime.ts"
import * as Plan from "./model/Plan.ts"

export type Runner = (settings: Settings) => Promise<Outcome>

/** Runs, and real seconds, that may be spent on making a failure smaller. */
const maxTries = 70
const maxSeconds = 90

/**
 * The smallest run found that still breaks the same promise: first without faults that do not matter, then with fewer and
 * fewer commands. Leaving something out changes what comes after it, so this is a search and not a proof.
 */
export const shrink = async (run: Runner, settings: Settings, broken: Outcome): Promise<Settings> => {
  const invariants = new Set(broken.problems.map(({ invariant }) => invariant))
  const began = real.now()
  let tries = 0
  const enough = () => tries >= maxTries || real.now() - began > maxSeconds * 1_000
  let best: Settings = { ...settings, trace: false }
  const stillBroken = async (candidate: Settings) => {
    if (enough()) return false
    tries += 1
    const { problems } = await run(candidate)
    if (!problems.some(({ invariant }) => invariants.has(invariant))) return false
    best = candidate
    return true
  }

  const happened = faultNames.filter((fault) => (broken.counts[fault] ?? 0) > 0)
  const withoutToo = (faults: ReadonlyArray<Fault>) => ({
    ...best,
    without: [...new Set([...best.without, ...faults])]
  })
  if (!(await stillBroken(withoutToo(faultNames)))) {
    // Halves of the faults, then one by one.
    for (const half of [happened.slice(0, happened.length / 2), happened.slice(happened.length / 2)]) {
      if (await stillBroken(withoutToo(half))) continue
      for (const fault of half) await stillBroken(withoutToo([fault]))
    }
  }

  let left = best.only ?? Plan.make(settings.seed, settings.commands).map(({ n }) => n)
  for (let size = Math.ceil(left.length / 2); size >= 1 && !enough(); size = size === 1 ? 0 : Math.ceil(size / 2)) {
    // From the end: what comes last matters least often.
    for (let end = left.length; end > 0; end -= size) {
      const fewer = [...left.slice(0, Math.max(0, end - size)), ...left.slice(end)]
      if (fewer.length < left.length && (await stillBroken({ ...best, only: fewer }))) left = fewer
    }
  }
  return best
}
