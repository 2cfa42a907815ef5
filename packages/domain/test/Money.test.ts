import { describe, expect, test } from "bun:test"
import { Result, Schema } from "effect"
import * as fc from "fast-check"
import {
  Currency,
  format,
  fromDecimal,
  InexactAmount,
  Minor,
  maxMinor,
  minorUnits,
  toDecimal
} from "../src/kernel/Money.ts"

const currency = fc.constantFrom(...Currency.literals)
/** Small amounts, amounts next to the limit, and everything between. */
const minor = fc.oneof(
  fc.integer({ min: 0, max: 100_000 }),
  fc.integer({ min: maxMinor - 100_000, max: maxMinor }),
  fc.maxSafeNat().map((value) => value % (maxMinor + 1))
)

/** The exact decimal notation of an amount, from its digits alone. */
const digitsOf = (amount: number, of: Currency): string => {
  const places = minorUnits[of]
  const text = String(amount).padStart(places + 1, "0")
  return places === 0 ? text : `${text.slice(0, -places)}.${text.slice(-places)}`
}

const accepted = (amount: number, of: Currency): number | "refused" =>
  Result.getOrElse(fromDecimal(amount, of), () => "refused" as const)

describe("decimals and minor units", () => {
  test("every currency has the minor unit of ISO 4217", () => {
    const known = Currency.literals.map((code) => {
      const { maximumFractionDigits } = new Intl.NumberFormat("en", {
        style: "currency",
        currency: code
      }).resolvedOptions()
      return [code, maximumFractionDigits]
    })
    expect<unknown>(minorUnits).toEqual(Object.fromEntries(known))
  })

  test("every amount comes back from its decimal, in every currency", () => {
    fc.assert(
      fc.property(minor, currency, (amount, of) => {
        expect(accepted(toDecimal(amount, of), of)).toBe(amount)
      }),
      { numRuns: 2_000 }
    )
  })

  test("the decimal is the double nearest to the exact value", () => {
    fc.assert(
      fc.property(minor, currency, (amount, of) => {
        expect(toDecimal(amount, of)).toBe(Number(digitsOf(amount, of)))
      }),
      { numRuns: 2_000 }
    )
  })

  test("an amount survives JSON exactly, whatever it is", () => {
    fc.assert(
      fc.property(minor, currency, (amount, of) => {
        const { price }: { price: number } = JSON.parse(JSON.stringify({ price: toDecimal(amount, of) }))
        expect(accepted(price, of)).toBe(amount)
      }),
      { numRuns: 2_000 }
    )
  })

  test("the way people write an amount is read as that amount", () => {
    fc.assert(
      fc.property(minor, currency, (amount, of) => {
        expect(accepted(JSON.parse(digitsOf(amount, of)), of)).toBe(amount)
      }),
      { numRuns: 1_000 }
    )
  })

  test("a double is accepted if and only if it is the double of an amount in range", () => {
    const anyDouble = fc.oneof(
      fc.double(),
      fc.double({ min: -1, max: 1, noNaN: true }),
      fc.double({ min: 0, max: 1e13, noNaN: true }),
      fc.tuple(minor, fc.constantFrom(0.1, 0.001, 0.000_1, 1e-9)).map(([amount, rest]) => amount / 100 + rest)
    )
    fc.assert(
      fc.property(anyDouble, currency, (amount, of) => {
        // toFixed rounds the exact value of the double, digit by digit (ECMA-262, Number.prototype.toFixed).
        const inRange = amount >= 0 && amount <= toDecimal(maxMinor, of)
        const exact = inRange && Number(amount.toFixed(minorUnits[of])) === amount
        expect(accepted(amount, of)).toBe(
          exact ? Number(amount.toFixed(minorUnits[of]).replace(".", "")) : ("refused" as const)
        )
      }),
      { numRuns: 5_000 }
    )
  })

  test("the limits are accepted and what lies one unit beyond is refused", () => {
    for (const of of Currency.literals) {
      expect(accepted(toDecimal(maxMinor, of), of)).toBe(maxMinor)
      expect(accepted(toDecimal(maxMinor + 1, of), of)).toBe("refused")
      expect(accepted(toDecimal(-1, of), of)).toBe("refused")
      expect(accepted(0, of)).toBe(0)
    }
  })

  test("what is no amount is refused, with the amount and the currency", () => {
    const refused: ReadonlyArray<readonly [number, Currency]> = [
      [Number.NaN, "USD"],
      [Number.POSITIVE_INFINITY, "EUR"],
      [Number.NEGATIVE_INFINITY, "EUR"],
      [1e30, "USD"],
      [1e308, "KWD"],
      [Number.MIN_VALUE, "USD"],
      [-0.01, "USD"],
      [-25, "JPY"],
      [0.1 + 0.2, "USD"],
      [0.001, "USD"],
      [25.105, "EUR"],
      [1.5, "JPY"],
      [0.1, "KRW"],
      [0.000_1, "KWD"],
      [1.000_5, "BHD"]
    ]
    for (const [amount, of] of refused) {
      expect(fromDecimal(amount, of)).toEqual(Result.fail(new InexactAmount({ amount, currency: of })))
    }
  })

  test("a refusal says how many decimals there may be", () => {
    expect(new InexactAmount({ amount: 1.005, currency: "USD" }).message).toBe(
      "1.005 is not an amount of USD (at most 2 decimals, 0 to 10000000000000)"
    )
    expect(new InexactAmount({ amount: 1.5, currency: "JPY" }).message).toContain("at most 0 decimals")
  })

  test("minus zero is plain zero", () => {
    for (const of of Currency.literals) expect(accepted(-0, of)).toBe(0)
  })

  test("for people every digit of the minor unit is written", () => {
    expect(format(12_950, "USD")).toBe("129.50 USD")
    fc.assert(fc.property(minor, currency, (amount, of) => format(amount, of) === `${digitsOf(amount, of)} ${of}`))
  })
})

describe("the schema of an amount", () => {
  test("an amount is an integer from 0 to the limit and nothing else", () => {
    const is = Schema.is(Minor)
    fc.assert(fc.property(minor, is))
    for (const amount of [-1, maxMinor + 1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, "1", 1n, null]) {
      expect(is(amount)).toBe(false)
    }
  })

  test("every amount and its decimal are within what a double holds exactly", () => {
    expect(Number.isSafeInteger(maxMinor)).toBe(true)
    for (const of of Currency.literals) {
      expect(toDecimal(maxMinor, of)).not.toBe(toDecimal(maxMinor - 1, of))
    }
  })
})
