import { describe, expect, test } from "bun:test"
import { Schema } from "effect"
import * as fc from "fast-check"
import { Currency } from "../src/kernel/Money.ts"
import { Region } from "../src/kernel/Region.ts"
import { Decision, Reason, type RuleName } from "../src/risk/Assessment.ts"
import { maxCounted, RiskRules } from "../src/risk/RiskRules.ts"
import { type Facts, judge, mostCounted, usualAmounts } from "../src/risk/Score.ts"

const rulesOf = Schema.decodeUnknownSync(RiskRules)

/** The rules when nothing is configured. */
const defaultRules = rulesOf({})

const points = fc.integer({ min: 0, max: 100 })

/** Steps as a configuration may have them: `over` rises, points do not fall. */
const stepsUpTo = (maximum: number) =>
  fc
    .uniqueArray(fc.tuple(fc.integer({ min: 0, max: maximum }), points), { maxLength: 10, selector: ([over]) => over })
    .map((pairs) => {
      const rising = pairs.map(([, each]) => each).toSorted((a, b) => a - b)
      return pairs
        .map(([over]) => over)
        .toSorted((a, b) => a - b)
        .map((over, nth) => ({ over, points: rising[nth] ?? 0 }))
    })
const windows = fc.array(fc.record({ windowSeconds: fc.integer({ min: 1, max: 2_592_000 }), steps: stepsUpTo(40) }), {
  maxLength: 5
})

/** Rules of any kind; numbers are small, so that facts fall on both sides of them. */
const anyRules = fc
  .record({
    thresholds: fc.tuple(fc.integer({ min: 1, max: 101 }), fc.integer({ min: 1, max: 101 })),
    user: windows,
    device: windows,
    high: stepsUpTo(2_000),
    unusual: stepsUpTo(20),
    minimumOrders: fc.integer({ min: 1, max: 20 }),
    regions: stepsUpTo(4),
    shared: stepsUpTo(8),
    flat: fc.tuple(points, points, points, points)
  })
  .map(({ thresholds, user, device, high, unusual, minimumOrders, regions, shared, flat }) =>
    rulesOf({
      review: Math.min(...thresholds),
      block: Math.max(...thresholds),
      velocity: { user, device },
      amount: { high: { USD: high, JPY: high }, unusual: { minimumOrders, steps: unusual } },
      mismatch: { currency: { points: flat[0] }, device: { points: flat[1] }, regions: { steps: regions } },
      device: { missing: { points: flat[2] }, new: { points: flat[3] }, shared: { steps: shared } }
    })
  )

const attempts = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 5, maxLength: 5 })
const anyFacts: fc.Arbitrary<Facts> = fc.record({
  amountMinor: fc.integer({ min: 0, max: 2_500 }),
  currency: fc.constantFrom("USD", "JPY"),
  region: fc.constantFrom(...Region.literals),
  userAttempts: attempts,
  deviceAttempts: attempts,
  usualMinor: fc.array(fc.integer({ min: 0, max: 300 }), { maxLength: usualAmounts, size: "max" }),
  otherRegions: fc.integer({ min: 0, max: 4 }),
  device: fc.option(
    fc.record({ known: fc.boolean(), userHasDevices: fc.boolean(), others: fc.integer({ min: 0, max: 9 }) })
  )
})

const sum = (reasons: ReadonlyArray<Reason>) => reasons.reduce((total, { points }) => total + points, 0)
const more = fc.integer({ min: 0, max: 1_000 })

describe("a verdict, whatever the rules and the facts", () => {
  test("is the sum of its reasons, at most 100, and the decision that the score stands for", () => {
    fc.assert(
      fc.property(anyRules, anyFacts, (rules, facts) => {
        const { score, decision, reasons } = judge(rules, facts)
        expect(score).toBe(Math.min(100, sum(reasons)))
        expect(decision).toBe(score >= rules.block ? "block" : score >= rules.review ? "review" : "allow")
        expect(reasons.every((reason) => reason.points > 0 && Schema.is(Reason)(reason))).toBe(true)
        expect(reasons.map(({ points }) => points)).toEqual(
          reasons.map(({ points }) => points).toSorted((a, b) => b - a)
        )
      }),
      { numRuns: 500 }
    )
  })

  test("is the same again for the same facts", () => {
    fc.assert(
      fc.property(anyRules, anyFacts, (rules, facts) => {
        expect(judge(structuredClone(rules), structuredClone(facts))).toEqual(judge(rules, facts))
      })
    )
  })

  test("depends neither on the order of the windows nor on that of the user's amounts", () => {
    const shuffled = <A>(values: ReadonlyArray<A>) =>
      fc.shuffledSubarray([...values], { minLength: values.length, maxLength: values.length })
    const together = fc.tuple(anyRules, anyFacts).chain(([rules, facts]) =>
      fc.record({
        rules: fc.constant(rules),
        facts: fc.constant(facts),
        order: shuffled(rules.velocity.user.map((_, nth) => nth)),
        usualMinor: shuffled(facts.usualMinor)
      })
    )
    fc.assert(
      fc.property(together, ({ rules, facts, order, usualMinor }) => {
        const pick = <A>(values: ReadonlyArray<A>) => values.filter((_, nth) => nth < order.length)
        const reordered = <A>(values: ReadonlyArray<A>) => order.flatMap((nth) => pick(values).slice(nth, nth + 1))
        const other = { ...rules, velocity: { ...rules.velocity, user: reordered(rules.velocity.user) } }
        expect(judge(other, { ...facts, usualMinor, userAttempts: reordered(facts.userAttempts) })).toEqual(
          judge(rules, facts)
        )
      }),
      { numRuns: 300 }
    )
  })

  const worse: Readonly<Record<string, (facts: Facts, by: number) => Facts>> = {
    "a larger amount": (facts, by) => ({ ...facts, amountMinor: facts.amountMinor + by }),
    "more attempts of the user": (facts, by) => ({
      ...facts,
      userAttempts: facts.userAttempts.map((count, nth) => count + (nth === by % 5 ? by : 0))
    }),
    "more attempts from the device": (facts, by) => ({
      ...facts,
      deviceAttempts: facts.deviceAttempts.map((count) => count + by)
    }),
    "smaller usual amounts": (facts, by) => ({
      ...facts,
      usualMinor: facts.usualMinor.map((amount) => Math.max(0, amount - by))
    }),
    "more regions": (facts, by) => ({ ...facts, otherRegions: facts.otherRegions + (by % 3) }),
    "more others on the device": ({ device, ...facts }, by) => ({
      ...facts,
      device: device === null ? null : { ...device, others: device.others + by }
    }),
    "a device not known": ({ device, ...facts }) => ({
      ...facts,
      device: device === null ? null : { ...device, known: false }
    }),
    "a device where there were others": ({ device, ...facts }) => ({
      ...facts,
      device: device === null ? null : { ...device, userHasDevices: true }
    })
  }
  for (const [what, makeWorse] of Object.entries(worse)) {
    test(`is never milder for ${what}`, () => {
      fc.assert(
        fc.property(anyRules, anyFacts, more, (rules, facts, by) => {
          const before = judge(rules, facts)
          const after = judge(rules, makeWorse(facts, by))
          expect(after.score).toBeGreaterThanOrEqual(before.score)
          const severity = Decision.literals.indexOf(after.decision)
          expect(severity).toBeGreaterThanOrEqual(Decision.literals.indexOf(before.decision))
        }),
        { numRuns: 300 }
      )
    })
  }

  test("does not change when counting ends at the last step's", () => {
    fc.assert(
      fc.property(anyRules, anyFacts, (rules, facts) => {
        const ended = (counts: ReadonlyArray<number>, own: RiskRules["velocity"]["user"]) =>
          counts.map((count, nth) => Math.min(count, mostCounted(own[nth]?.steps ?? []) + 1))
        const bounded = {
          ...facts,
          userAttempts: ended(facts.userAttempts, rules.velocity.user),
          deviceAttempts: ended(facts.deviceAttempts, rules.velocity.device)
        }
        expect(judge(rules, bounded)).toEqual(judge(rules, facts))
      })
    )
  })
})

/** Somebody who buys as always, from the device they always have. */
const ordinary: Facts = {
  amountMinor: 40_00,
  currency: "USD",
  region: "us",
  userAttempts: [1],
  deviceAttempts: [1],
  usualMinor: [30_00, 40_00, 50_00, 20_00, 60_00],
  otherRegions: 0,
  device: { known: true, userHasDevices: true, others: 0 }
}
const verdict = (facts: Partial<Facts>) => judge(defaultRules, { ...ordinary, ...facts })
const pointsOf = (facts: Partial<Facts>): Partial<Record<RuleName, number>> =>
  Object.fromEntries(verdict(facts).reasons.map(({ rule, points }) => [rule, points]))
const device = { known: true, userHasDevices: true, others: 0 }

describe("by default", () => {
  test("an ordinary purchase has no points at all, nor has a first one", () => {
    expect(verdict({})).toEqual({ score: 0, decision: "allow", reasons: [] })
    expect(verdict({ usualMinor: [], device: { known: false, userHasDevices: false, others: 0 } }).score).toBe(0)
  })

  test("each rule gives its points from one more than its limit on, and not before", () => {
    const cases: ReadonlyArray<readonly [Partial<Facts>, Partial<Record<RuleName, number>>]> = [
      [{ userAttempts: [60] }, {}],
      [{ userAttempts: [61] }, { "velocity.user": 10 }],
      [{ userAttempts: [201] }, { "velocity.user": 25 }],
      [{ userAttempts: [600] }, { "velocity.user": 25 }],
      [{ userAttempts: [601] }, { "velocity.user": 60 }],
      [{ deviceAttempts: [200] }, {}],
      [{ deviceAttempts: [201] }, { "velocity.device": 10 }],
      [{ deviceAttempts: [601] }, { "velocity.device": 60 }],
      [{ amountMinor: 500_00, usualMinor: [] }, {}],
      [{ amountMinor: 500_01, usualMinor: [] }, { "amount.high": 20 }],
      [{ amountMinor: 2_000_01, usualMinor: [] }, { "amount.high": 40 }],
      [{ amountMinor: 10_000_01, usualMinor: [] }, { "amount.high": 60 }],
      [{ amountMinor: 400_00 }, {}],
      [{ amountMinor: 400_01 }, { "amount.unusual": 15 }],
      [{ amountMinor: 400_01, usualMinor: [1, 1, 1, 1] }, {}],
      [{ amountMinor: 11, usualMinor: [0, 0, 0, 0, 0] }, { "amount.unusual": 15 }],
      [{ currency: "EUR" }, { "mismatch.currency": 10 }],
      [{ currency: "EUR", region: "eu" }, {}],
      [{ otherRegions: 1 }, { "mismatch.regions": 15 }],
      [{ otherRegions: 2 }, { "mismatch.regions": 30 }],
      [{ device: null }, { "device.missing": 5 }],
      [{ device: { ...device, known: false } }, { "device.new": 10 }],
      [{ device: { known: false, userHasDevices: false, others: 1 } }, { "mismatch.device": 20 }],
      [{ device: { ...device, others: 3 } }, {}],
      [{ device: { ...device, others: 4 } }, { "device.shared": 15 }],
      [{ device: { ...device, others: 11 } }, { "device.shared": 30 }]
    ]
    expect(cases.map(([facts]) => [facts, pointsOf(facts)])).toEqual(
      cases.map(([facts, expected]) => [facts, expected])
    )
    const tried = new Set(cases.flatMap(([, expected]) => Object.keys(expected)))
    expect(tried).toEqual(new Set(Reason.fields.rule.literals))
  })

  test("one user's 600 payments in 10 minutes are let through, in whatever currency, without a device, of any usual size", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 600 }),
        fc.integer({ min: 0, max: 500_00 }),
        fc.constantFrom(...Region.literals),
        fc.array(fc.integer({ min: 0, max: 500_00 }), { maxLength: 20 }),
        (count, amountMinor, region, usualMinor) => {
          const hasty = { userAttempts: [count], deviceAttempts: [], amountMinor, region, usualMinor, device: null }
          expect(verdict(hasty).decision).toBe("allow")
        }
      )
    )
  })

  test("haste together with a big amount, or a device of many, is looked at; with all of it, it is blocked", () => {
    expect(verdict({ userAttempts: [201], amountMinor: 2_000_01, usualMinor: [] }).decision).toBe("review")
    const ofMany = { known: false, userHasDevices: true, others: 11 }
    expect(verdict({ userAttempts: [201], device: ofMany }).decision).toBe("review")
    expect(verdict({ userAttempts: [601], amountMinor: 2_000_01, device: ofMany }).decision).toBe("block")
  })

  test("every currency has an idea of much of its own", () => {
    for (const currency of Currency.literals) {
      const steps = defaultRules.amount.high[currency]
      expect([currency, steps.map(({ points }) => points)]).toEqual([currency, [20, 40, 60]])
    }
    expect(verdict({ currency: "JPY", region: "apac", amountMinor: 75_000, usualMinor: [] }).score).toBe(0)
    expect(verdict({ currency: "JPY", region: "apac", amountMinor: 75_001, usualMinor: [] }).score).toBe(20)
  })

  test("an operator reads why, the weightiest first", () => {
    const { reasons } = verdict({ amountMinor: 600_00, userAttempts: [61], region: "br", otherRegions: 2 })
    expect(reasons).toEqual([
      { rule: "mismatch.regions", points: 30, detail: "2 other regions of the user within 3600 s" },
      { rule: "amount.high", points: 20, detail: "600.00 USD is more than 500.00 USD" },
      {
        rule: "amount.unusual",
        points: 15,
        detail: "600.00 USD is more than 10 times the user's usual 40.00 USD"
      },
      { rule: "mismatch.currency", points: 10, detail: "A user of region br pays in USD" },
      { rule: "velocity.user", points: 10, detail: "More than 60 attempts of the user within 600 s" }
    ])
  })
})

describe("a configuration", () => {
  const refused = (value: unknown) => {
    const decoded = Schema.decodeUnknownExit(RiskRules)(value, { onExcessProperty: "error" })
    return decoded._tag === "Failure"
  }

  test("names only what differs: the rest is as by default", () => {
    const rules = rulesOf({ review: 40, amount: { high: { EUR: [] } }, device: { missing: { points: 0 } } })
    expect(rules).toEqual({
      ...defaultRules,
      review: 40,
      amount: { ...defaultRules.amount, high: { ...defaultRules.amount.high, EUR: [] } },
      device: { ...defaultRules.device, missing: { points: 0 } }
    })
  })

  test("that makes no sense is refused", () => {
    const step = (over: number, points: number) => ({ over, points })
    const windows = (...steps: ReadonlyArray<unknown>) => ({ velocity: { user: [{ windowSeconds: 60, steps }] } })
    const bad: ReadonlyArray<unknown> = [
      { review: 0 },
      { review: 102 },
      { review: 50.5 },
      { review: 91 },
      { review: 50, block: 49 },
      { reveiw: 50 },
      { keptDays: 0 },
      { device: { missing: { points: 101 } } },
      { device: { missing: { points: -1 } } },
      { amount: { high: { XXX: [] } } },
      windows(step(maxCounted + 1, 5)),
      windows(step(5, 5), step(5, 6)),
      windows(step(6, 5), step(5, 6)),
      windows(step(5, 6), step(6, 5)),
      windows(...Array.from({ length: 11 }, (_, nth) => step(nth, 5))),
      { velocity: { user: [{ windowSeconds: 0, steps: [] }] } },
      { velocity: { user: Array.from({ length: 6 }, () => ({ windowSeconds: 1, steps: [] })) } }
    ]
    for (const value of bad) expect([value, refused(value)]).toEqual([value, true])
    const good: ReadonlyArray<unknown> = [
      {},
      { review: 90, block: 90 },
      { review: 101, block: 101 },
      windows(),
      windows(step(0, 0), step(maxCounted, 100)),
      windows(...Array.from({ length: 10 }, (_, nth) => step(nth, 5)))
    ]
    for (const value of good) expect([value, refused(value)]).toEqual([value, false])
  })

  test("can switch the whole of it off", () => {
    const off = rulesOf({ review: 101, block: 101 })
    fc.assert(fc.property(anyFacts, (facts) => judge(off, facts).decision === "allow"))
    const worst = { ...ordinary, amountMinor: 1e15, userAttempts: [601], deviceAttempts: [601], otherRegions: 4 }
    expect(judge(off, worst)).toMatchObject({ score: 100, decision: "allow" })
  })
})
