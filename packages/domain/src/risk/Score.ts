import { type Currency, format } from "../kernel/Money.ts"
import type { Region } from "../kernel/Region.ts"
import { type Decision, maxScore, type Reason, type RuleName } from "./Assessment.ts"
import type { RiskRules, Step } from "./RiskRules.ts"

/** Newest allowed payments that a user's usual amount is taken from. */
export const usualAmounts = 20

/** Newest attempts of a user that are looked at for regions and devices. */
export const recentAttempts = 50

/** What is known about an attempt to pay when it is judged. Counts end where no step can tell more from more. */
export interface Facts {
  readonly amountMinor: number
  readonly currency: Currency
  readonly region: Region
  /** Attempts of the user in each of the configured windows, this one included. */
  readonly userAttempts: ReadonlyArray<number>
  /** Those from the device; empty when there is no device id. */
  readonly deviceAttempts: ReadonlyArray<number>
  /** The user's newest allowed amounts in the currency, in any order. */
  readonly usualMinor: ReadonlyArray<number>
  /** Other regions the user came from within the configured window. */
  readonly otherRegions: number
  /** Null when there is no device id. */
  readonly device: DeviceFacts | null
}

export interface DeviceFacts {
  /** The user was allowed to pay from it before. */
  readonly known: boolean
  /** The user lately had a device id at all. */
  readonly userHasDevices: boolean
  /** Other users seen on it. */
  readonly others: number
}

export interface Verdict {
  readonly score: number
  readonly decision: Decision
  /** The rules that gave points, the weightiest first. */
  readonly reasons: ReadonlyArray<Reason>
}

/** The highest step that is passed. */
const passed = (steps: ReadonlyArray<Step>, measure: number): Step | undefined =>
  steps.findLast(({ over }) => measure > over)

/** The most that the steps can tell apart: counting further changes nothing. */
export const mostCounted = (steps: ReadonlyArray<Step>): number => steps.at(-1)?.over ?? 0

const stepped = (
  rule: RuleName,
  steps: ReadonlyArray<Step>,
  measure: number,
  detail: (step: Step) => string
): ReadonlyArray<Reason> => {
  const step = passed(steps, measure)
  return step === undefined ? [] : [{ rule, points: step.points, detail: detail(step) }]
}

const flat = (rule: RuleName, points: number, holds: boolean, detail: string): ReadonlyArray<Reason> =>
  holds ? [{ rule, points, detail }] : []

const velocity = (
  rule: RuleName,
  windows: RiskRules["velocity"]["user"],
  attempts: ReadonlyArray<number>,
  by: string
): ReadonlyArray<Reason> =>
  windows.flatMap(({ windowSeconds, steps }, nth) =>
    stepped(rule, steps, attempts[nth] ?? 0, ({ over }) => `More than ${over} attempts ${by} within ${windowSeconds} s`)
  )

/** The middle one; of two in the middle the larger, which is the milder. */
const median = (amounts: ReadonlyArray<number>): number =>
  amounts.toSorted((a, b) => a - b)[Math.floor(amounts.length / 2)] ?? 0

const unusual = (
  { minimumOrders, steps }: RiskRules["amount"]["unusual"],
  { amountMinor, currency, usualMinor }: Facts
): ReadonlyArray<Reason> => {
  if (usualMinor.length < minimumOrders) return []
  // Somebody who has only had things for nothing has no usual amount to be a multiple of.
  const usual = Math.max(1, median(usualMinor))
  const words = (times: number) =>
    `${format(amountMinor, currency)} is more than ${times} times the user's usual ${format(usual, currency)}`
  return stepped("amount.unusual", steps, amountMinor / usual, ({ over }) => words(over))
}

const ofDevice = ({ device, mismatch }: RiskRules, found: DeviceFacts | null): ReadonlyArray<Reason> => {
  if (found === null) return flat("device.missing", device.missing.points, true, "No device id")
  const { known, others, userHasDevices } = found
  return [
    ...flat("device.new", device.new.points, !known && userHasDevices, "A new device, though the user had one"),
    ...flat(
      "mismatch.device",
      mismatch.device.points,
      !known && others > 0,
      "A device that is new to the user and known with others"
    ),
    ...stepped(
      "device.shared",
      device.shared.steps,
      others,
      ({ over }) => `More than ${over} other users on the device`
    )
  ]
}

const decisionOf = ({ block, review }: RiskRules, score: number): Decision =>
  score >= block ? "block" : score >= review ? "review" : "allow"

const text = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)

/**
 * Judges an attempt to pay. Each rule that sees something gives its points, and the score is their sum, at most 100. The
 * same facts always get the same verdict; worse facts never a lower score.
 */
export const judge = (rules: RiskRules, facts: Facts): Verdict => {
  const { amountMinor, currency, otherRegions, region } = facts
  const { amount, mismatch } = rules
  const reasons = [
    ...velocity("velocity.user", rules.velocity.user, facts.userAttempts, "of the user"),
    ...velocity("velocity.device", rules.velocity.device, facts.deviceAttempts, "from the device"),
    ...stepped(
      "amount.high",
      amount.high[currency],
      amountMinor,
      ({ over }) => `${format(amountMinor, currency)} is more than ${format(over, currency)}`
    ),
    ...unusual(amount.unusual, facts),
    ...flat(
      "mismatch.currency",
      mismatch.currency.points,
      !mismatch.currency.expected[region].includes(currency),
      `A user of region ${region} pays in ${currency}`
    ),
    ...stepped(
      "mismatch.regions",
      mismatch.regions.steps,
      otherRegions,
      () => `${otherRegions} other regions of the user within ${mismatch.regions.windowSeconds} s`
    ),
    ...ofDevice(rules, facts.device)
  ]
    .filter(({ points }) => points > 0)
    .toSorted((a, b) => b.points - a.points || text(a.rule, b.rule) || text(a.detail, b.detail))
  const score = Math.min(
    maxScore,
    reasons.reduce((sum, { points }) => sum + points, 0)
  )
  return { score, decision: decisionOf(rules, score), reasons }
}
