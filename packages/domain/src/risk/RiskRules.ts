import { Effect, Schema } from "effect"
import { Currency, maxMinor } from "../kernel/Money.ts"
import type { Region } from "../kernel/Region.ts"
import { maxScore, Points } from "./Assessment.ts"

/** From more than `over` of something on, a rule gives these points. */
export interface Step {
  readonly over: number
  readonly points: number
}

const rises = Schema.makeFilter<ReadonlyArray<Step>>(
  (steps) =>
    steps.every(({ over, points }, nth) => {
      const before = steps[nth - 1]
      return before === undefined || (over > before.over && points >= before.points)
    })
      ? undefined
      : "Expected steps whose `over` rises and whose points do not fall",
  { title: "rising steps" }
)

/** At most 10 steps, the lowest first. The highest one that is passed counts; no steps, no rule. */
const steps = (maximum: number) =>
  Schema.Array(
    Schema.Struct({ over: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum })), points: Points })
  ).check(Schema.isMaxLength(10), rises)

/** Rows that one assessment may count for one rule: the limit that keeps an assessment cheap. */
export const maxCounted = 5_000

const Counts = steps(maxCounted)
const Amounts = steps(maxMinor)

const secondsOfDay = 24 * 60 * 60

/** How many attempts the last so many seconds saw (at most 30 days), the present one included. */
const Window = Schema.Struct({
  windowSeconds: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 30 * secondsOfDay })),
  steps: Counts
})
const Windows = Schema.Array(Window).check(Schema.isMaxLength(5))

/** A score from which on something happens; one more than the highest score means never. */
const Threshold = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: maxScore + 1 }))

const byDefault =
  <S extends Schema.Top>(value: S["Encoded"]) =>
  (schema: S) =>
    schema.pipe(Schema.withDecodingDefaultKey<S>(Effect.succeed(value)))

/** Amounts of a currency: `first` is about 500 USD, a big grocery order; four and twenty times as much weigh more. */
const high = (first: number) =>
  Amounts.pipe(
    byDefault<typeof Amounts>([
      { over: first, points: 20 },
      { over: first * 4, points: 40 },
      { over: first * 20, points: 60 }
    ])
  )

const currencies = (...expected: ReadonlyArray<Currency>) => {
  const schema = Schema.Array(Currency).check(Schema.isMaxLength(Currency.literals.length))
  return schema.pipe(byDefault<typeof schema>(expected))
}

const Velocity = Schema.Struct({
  /**
   * `velocity.user`. A person pays once or twice; an import or a load test of the shop's own pays hundreds of times as
   * one user and is to get through. So speed alone reaches review only past 600 payments in 10 minutes, and before that
   * adds to what else is odd.
   */
  user: Windows.pipe(
    byDefault<typeof Windows>([
      {
        windowSeconds: 600,
        steps: [
          { over: 60, points: 10 },
          { over: 200, points: 25 },
          { over: 600, points: 60 }
        ]
      }
    ])
  ),
  /** `velocity.device`. Weighs little beside the user's own speed, which it mostly repeats, unless many users share it. */
  device: Windows.pipe(
    byDefault<typeof Windows>([
      {
        windowSeconds: 600,
        steps: [
          { over: 200, points: 10 },
          { over: 600, points: 60 }
        ]
      }
    ])
  )
})

const High = Schema.Struct({
  USD: high(500_00),
  EUR: high(450_00),
  GBP: high(400_00),
  INR: high(42_000_00),
  BRL: high(2_500_00),
  AUD: high(750_00),
  SGD: high(650_00),
  CHF: high(450_00),
  PLN: high(2_000_00),
  JPY: high(75_000),
  KRW: high(700_000),
  CLP: high(470_000),
  KWD: high(150_000),
  BHD: high(190_000)
})

const minimumOrders = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 20 }))
const Unusual = Schema.Struct({
  /** Allowed payments in the currency that make a habit. */
  minimumOrders: minimumOrders.pipe(byDefault<typeof minimumOrders>(5)),
  /** `over`: so many times the user's usual amount. A weekly shop is easily five times a pint of milk. */
  steps: Counts.pipe(byDefault<typeof Counts>([{ over: 10, points: 15 }]))
})

const Amount = Schema.Struct({
  /** `amount.high`, per currency in minor units. An order far from any household's is looked at whoever orders. */
  high: High.pipe(byDefault<typeof High>({})),
  /** `amount.unusual`: against the median of the user's newest 20 allowed payments in the currency. */
  unusual: Unusual.pipe(byDefault<typeof Unusual>({}))
})

const ExpectedCurrencies = Schema.Struct({
  us: currencies("USD"),
  eu: currencies("EUR", "GBP", "CHF", "PLN", "KWD", "BHD"),
  apac: currencies("SGD", "AUD", "JPY", "KRW"),
  in: currencies("INR"),
  br: currencies("BRL", "CLP")
} satisfies Record<Region, unknown>)

const worth = (points: number) => Points.pipe(byDefault<typeof Points>(points))

const ForeignCurrency = Schema.Struct({
  points: worth(10),
  /** The currencies that are nothing odd, by the region in the token. */
  expected: ExpectedCurrencies.pipe(byDefault<typeof ExpectedCurrencies>({}))
})
const OthersDevice = Schema.Struct({ points: worth(20) })
const regionsWindow = Window.fields.windowSeconds
const Regions = Schema.Struct({
  windowSeconds: regionsWindow.pipe(byDefault<typeof regionsWindow>(3_600)),
  /** `over`: so many other regions. One can be a journey or a VPN; two within an hour are hardly one person. */
  steps: Counts.pipe(
    byDefault<typeof Counts>([
      { over: 0, points: 15 },
      { over: 1, points: 30 }
    ])
  )
})

const Mismatch = Schema.Struct({
  /** `mismatch.currency`: the order's currency is foreign to the token's region. Travellers do it; a hint, no more. */
  currency: ForeignCurrency.pipe(byDefault<typeof ForeignCurrency>({})),
  /** `mismatch.device`: new to this user, known with others: a household's tablet, or somebody with many accounts. */
  device: OthersDevice.pipe(byDefault<typeof OthersDevice>({})),
  /** `mismatch.regions`: the same user from other regions a short time ago. */
  regions: Regions.pipe(byDefault<typeof Regions>({}))
})

const Missing = Schema.Struct({ points: worth(5) })
const New = Schema.Struct({ points: worth(10) })
const Shared = Schema.Struct({
  /** `over`: so many other users. Families share a device, and so does a help desk; a dozen accounts are a business. */
  steps: Counts.pipe(
    byDefault<typeof Counts>([
      { over: 3, points: 15 },
      { over: 10, points: 30 }
    ])
  )
})

const Device = Schema.Struct({
  /** `device.missing`: scripts and privacy-minded people send none; alone it means nothing. */
  missing: Missing.pipe(byDefault<typeof Missing>({})),
  /** `device.new`: not one this user was allowed to pay from before, though there was one lately. */
  new: New.pipe(byDefault<typeof New>({})),
  /** `device.shared`: other users were seen on it. */
  shared: Shared.pipe(byDefault<typeof Shared>({}))
})

const keptDays = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 3_650 }))
const review = Threshold.pipe(byDefault<typeof Threshold>(60))
const block = Threshold.pipe(byDefault<typeof Threshold>(90))

/**
 * What makes an attempt to pay risky, and how much. Everything has a default, so a configuration names only what differs
 * (`{"review": 40}`); a list is replaced whole.
 *
 * The defaults are a grocery shop's. No rule but absurd speed (600 payments in 10 minutes) or an absurd amount (about
 * 10,000 USD) reaches review alone; two or three that agree do. Fast, unusual, foreign and without a device together
 * (25 + 15 + 10 + 5) stay below it, which is what imports and load tests look like at their worst; fast and big (25 + 40),
 * or fast on a device of many (25 + 30 + 10), do not. To switch it off: `{"review": 101, "block": 101}`.
 */
export const RiskRules = Schema.Struct({
  /** The score from which on a person looks first. */
  review,
  /** The score from which on the payment is refused. */
  block,
  /** How long assessments are kept, and so how far back users and devices are known. */
  keptDays: keptDays.pipe(byDefault<typeof keptDays>(90)),
  velocity: Velocity.pipe(byDefault<typeof Velocity>({})),
  amount: Amount.pipe(byDefault<typeof Amount>({})),
  mismatch: Mismatch.pipe(byDefault<typeof Mismatch>({})),
  device: Device.pipe(byDefault<typeof Device>({}))
}).check(
  Schema.makeFilter((rules) => (rules.review <= rules.block ? undefined : "Expected `review` to be at most `block`"), {
    title: "review before block"
  })
)
export type RiskRules = typeof RiskRules.Type
