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

/** Formats for people: `129.50 USD`. */
export const format = (minor: number, currency: Currency): string =>
  `${toDecimal(minor, currency).toFixed(minorUnits[currency])} ${currency}`
