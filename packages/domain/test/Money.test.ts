import { describe, expect, test } from "bun:test"
import { Result, Schema } from "effect"
import * as fc from "fast-check"
import {
  allocate,
  Currency,
  format,
  fromDecimal,
  InexactAmount,
  Minor,
  maxMinor,
  minorUnits,
  roundHalfEven,
  share,
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

/** numerator / denominator, rounded half to even, in integers. Both may be huge; the denominator is positive. */
const exactHalfEven = (numerator: bigint, denominator: bigint): bigint => {
  const towardZero = numerator / denominator
  const floor = numerator % denominator < 0n ? towardZero - 1n : towardZero
  const twice = (numerator - floor * denominator) * 2n
  if (twice < denominator) return floor
  if (twice > denominator) return floor + 1n
  return floor % 2n === 0n ? floor : floor + 1n
}

/** The exact value of a finite double as a fraction. */
const fractionOf = (value: number): readonly [bigint, bigint] => {
  let numerator = value
  let exponent = 0n
  while (!Number.isInteger(numerator)) {
    numerator *= 2
    exponent += 1n
  }
  return [BigInt(numerator), 2n ** exponent]
}

describe("rounding", () => {
  test("half goes to the even neighbour, anything else to the nearest", () => {
    expect([0.5, 1.5, 2.5, 3.5, 2.4999, 2.5001, 7].map(roundHalfEven)).toEqual([0, 2, 2, 4, 2, 3, 7])
  })

  test("rounding agrees with exact arithmetic on every double", () => {
    const value = fc.oneof(
      fc.double({ min: -1e6, max: 1e6, noNaN: true }),
      fc.double({ min: 0, max: Number.MAX_SAFE_INTEGER, noNaN: true }),
      fc.integer({ min: -1_000, max: 1_000 }).map((doubled) => doubled / 2),
      fc.integer({ min: 0, max: 2 ** 52 }).map((doubled) => doubled / 2)
    )
    fc.assert(
      fc.property(value, (exact) => {
        expect(BigInt(roundHalfEven(exact))).toBe(exactHalfEven(...fractionOf(exact)))
      }),
      { numRuns: 3_000 }
    )
  })
})

describe("shares", () => {
  const basisPoints = fc.integer({ min: 0, max: 10_000 })

  test("a share agrees with exact arithmetic, up to the largest amount", () => {
    fc.assert(
      fc.property(minor, basisPoints, (amount, points) => {
        expect(BigInt(share(amount, points))).toBe(exactHalfEven(BigInt(amount) * BigInt(points), 10_000n))
      }),
      { numRuns: 5_000 }
    )
  })

  test("a share just beside a half is not taken for the half", () => {
    // 999,999,999,995,001 × 0.9999 = 999,899,999,995,001.4999…: the fraction is finer than a double is up there.
    const amounts = Array.from({ length: 10_000 }, (_, index) => maxMinor - index)
    const wrong = amounts.filter(
      (amount) => BigInt(share(amount, 9_999)) !== exactHalfEven(BigInt(amount) * 9_999n, 10_000n)
    )
    expect(wrong).toEqual([])
  })

  test("nothing is a share of nothing, and all is the whole", () => {
    fc.assert(
      fc.property(minor, basisPoints, (amount, points) => {
        expect([share(amount, 0), share(amount, 10_000), share(0, points)]).toEqual([0, amount, 0])
      })
    )
  })

  test("a larger amount has no smaller share", () => {
    fc.assert(
      fc.property(minor, minor, basisPoints, (a, b, points) => {
        expect(share(Math.min(a, b), points)).toBeLessThanOrEqual(share(Math.max(a, b), points))
      })
    )
  })
})

describe("allocation", () => {
  const weights = fc
    .array(fc.oneof(fc.integer({ min: 0, max: 10 }), fc.integer({ min: 0, max: maxMinor })), {
      minLength: 1,
      maxLength: 100
    })
    .filter((all) => all.some((weight) => weight > 0))
  const sum = (numbers: ReadonlyArray<number>) => numbers.reduce((total, number) => total + BigInt(number), 0n)

  test("the parts sum to the whole, one part a weight", () => {
    fc.assert(
      fc.property(minor, weights, (amount, all) => {
        const parts = allocate(amount, all)
        expect(parts).toHaveLength(all.length)
        expect(sum(parts)).toBe(BigInt(amount))
      }),
      { numRuns: 1_000 }
    )
  })

  test("no part is a whole unit away from its exact share", () => {
    fc.assert(
      fc.property(minor, weights, (amount, all) => {
        const total = sum(all)
        const exact = all.map((weight) => (BigInt(amount) * BigInt(weight)) / total)
        const fits = allocate(amount, all).map((part, index) => {
          const floor = exact[index] ?? -1n
          const isExact = floor * total === BigInt(amount) * BigInt(all[index] ?? 0)
          return BigInt(part) === floor || (!isExact && BigInt(part) === floor + 1n)
        })
        expect(fits).not.toContain(false)
      }),
      { numRuns: 1_000 }
    )
  })

  test("units left over go to the largest remainders, and among equals to the first", () => {
    expect(allocate(100, [1, 1, 1])).toEqual([34, 33, 33])
    expect(allocate(101, [1, 1, 1])).toEqual([34, 34, 33])
    expect(allocate(10, [1, 2, 4])).toEqual([1, 3, 6])
    expect(allocate(1, [1, 2, 2, 1])).toEqual([0, 1, 0, 0])
  })

  test("who comes earlier never gets less than an equal who comes later", () => {
    fc.assert(
      fc.property(minor, fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 50 }), (amount, all) => {
        const parts = allocate(amount, all)
        for (const weight of [1, 2, 3]) {
          const equals = parts.filter((_, index) => all[index] === weight)
          expect(equals).toEqual(equals.toSorted((a, b) => b - a))
        }
      })
    )
  })

  test("another order of the weights gives the same parts to the same weights", () => {
    fc.assert(
      fc.property(minor, fc.uniqueArray(fc.integer({ min: 1, max: 1_000 }), { minLength: 1 }), (amount, all) => {
        const shape = (order: ReadonlyArray<number>) => {
          const parts = allocate(amount, order)
          return order
            .map((weight, index) => ({ weight, part: parts[index] ?? -1 }))
            .toSorted((a, b) => a.weight - b.weight)
        }
        const [forward, backward] = [shape(all), shape(all.toReversed())]
        // Equal remainders may swap their odd unit; nothing else moves.
        expect(forward.map(({ part }, index) => Math.abs(part - (backward[index]?.part ?? -2)) <= 1)).not.toContain(
          false
        )
        const total = sum(all)
        const remainders = all.map((weight) => (BigInt(amount) * BigInt(weight)) % total)
        if (new Set(remainders).size === all.length) expect(forward).toEqual(backward)
      })
    )
  })

  test("no weight, no part; and no weight at all gives nothing to anybody", () => {
    fc.assert(
      fc.property(minor, weights, (amount, all) => {
        const parts = allocate(amount, [0, ...all, 0])
        expect([parts.at(0), parts.at(-1)]).toEqual([0, 0])
      })
    )
    expect(allocate(100, [0, 0])).toEqual([0, 0])
    expect(allocate(100, [])).toEqual([])
  })
})
