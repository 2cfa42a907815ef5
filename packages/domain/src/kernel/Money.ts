import { Data, Result, Schema } from "effect"

/**
 * Digits behind the decimal point (ISO 4217, "minor unit") of the currencies the shop trades in. A currency that is
 * not here is refused at the border.
 */
export const minorUnits = {
  USD: 2,
  EUR: 2,
  GBP: 2,
  INR: 2,
  BRL: 2,
  AUD: 2,
  SGD: 2,
  CHF: 2,
  PLN: 2,
  JPY: 0,
  KRW: 0,
  CLP: 0,
  KWD: 3,
  BHD: 3
} as const

export const Currency = Schema.Literals([
  "USD",
  "EUR",
  "GBP",
  "INR",
  "BRL",
  "AUD",
  "SGD",
  "CHF",
  "PLN",
  "JPY",
  "KRW",
  "CLP",
  "KWD",
  "BHD"
])
export type Currency = typeof Currency.Type

/** The largest amount of money handled, in minor units: 10^15, which a double still holds exactly, decimals included. */
export const maxMinor = 1_000_000_000_000_000

/** The largest price of one unit, in minor units: 10^9, so that the largest order (100 lines of 9,900) stays in range. */
export const maxPriceMinor = 1_000_000_000

/** An amount in minor units of some currency: an integer, never negative. */
export const Minor = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: maxMinor }))

/** A decimal amount that its currency cannot express exactly, or that is out of range. */
export class InexactAmount extends Data.TaggedError("InexactAmount")<{
  readonly amount: number
  readonly currency: Currency
}> {
  override get message() {
    return `${this.amount} is not an amount of ${this.currency} (at most ${minorUnits[this.currency]} decimals, 0 to ${toDecimal(maxMinor, this.currency)})`
  }
}

/**
 * Reads a decimal number as minor units, exactly: 25.1 USD is 2510. Fails where a digit would be lost. A JSON number is
 * a double, so the test is that the nearest minor amount prints back as the very same number.
 */
export const fromDecimal = (amount: number, currency: Currency): Result.Result<number, InexactAmount> => {
  const minor = Math.round(amount * 10 ** minorUnits[currency])
  return minor >= 0 && minor <= maxMinor && toDecimal(minor, currency) === amount
    ? Result.succeed(minor === 0 ? 0 : minor) // -0 is 0
    : Result.fail(new InexactAmount({ amount, currency }))
}

/** Minor units as the decimal number that stands in JSON: the double nearest to the exact value. */
export const toDecimal = (minor: number, currency: Currency): number => {
  const digits = minorUnits[currency]
  return digits === 0 ? minor : minor / 10 ** digits
}

/** Rounds half to even (IEEE 754 "banker's"), the one rounding of the shop; it happens in percentages only. */
export const roundHalfEven = (value: number): number => {
  const floor = Math.floor(value)
  const rest = value - floor
  if (rest < 0.5) return floor
  if (rest > 0.5) return floor + 1
  return floor % 2 === 0 ? floor : floor + 1
}

/** A share of an amount, in basis points (1/100 of a per cent), rounded half to even to the minor unit. */
export const share = (minor: number, basisPoints: number): number => {
  const exact = BigInt(minor) * BigInt(basisPoints)
  const quotient = exact / 10_000n
  // Quotient and fraction in one double would lose digits of the fraction from 10^12 on; only the parity is needed.
  const odd = Number(quotient % 2n)
  return Number(quotient) - odd + roundHalfEven(odd + Number(exact % 10_000n) / 10_000)
}

/** Splits an amount in proportion to weights so that the parts sum to it again (largest remainder first). */
export const allocate = (minor: number, weights: ReadonlyArray<number>): ReadonlyArray<number> => {
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  if (total === 0) return weights.map(() => 0)
  const exact = weights.map((weight) => (BigInt(minor) * BigInt(weight)) / BigInt(total))
  const parts = exact.map(Number)
  const remainders = weights.map((weight, index) => ({
    index,
    rest: Number((BigInt(minor) * BigInt(weight)) % BigInt(total))
  }))
  remainders.sort((a, b) => b.rest - a.rest || a.index - b.index)
  let missing = minor - parts.reduce((sum, part) => sum + part, 0)
  for (const { index } of remainders) {
    if (missing === 0) break
    parts[index] = (parts[index] ?? 0) + 1
    missing -= 1
  }
  return parts
}

/** Formats for people: `129.50 USD`. */
export const format = (minor: number, currency: Currency): string =>
  `${toDecimal(minor, currency).toFixed(minorUnits[currency])} ${currency}`
