import { describe, expect, test } from "bun:test"
import { Schema } from "effect"
import * as fc from "fast-check"
import { Category, PriceReason, ProductDescription, ProductName } from "../src/catalogue/Product.ts"
import { Email, Password, PersonName } from "../src/identity/Identity.ts"
import { AdjustmentReason } from "../src/inventory/Stock.ts"
import { isStorable, optionalText, text } from "../src/kernel/Text.ts"

const storable = Schema.is(Schema.String.check(isStorable))

const nul = "\u0000"
const surrogates = Array.from({ length: 0x800 }, (_, index) => String.fromCharCode(0xd800 + index))
/** Any sequence of UTF-16 code units, most of them around the ones that matter. */
const utf16 = fc
  .array(
    fc.oneof(fc.integer({ min: 0, max: 0xffff }), fc.integer({ min: 0xd700, max: 0xe0ff }), fc.constantFrom(0, 0x41))
  )
  .map((units) => String.fromCharCode(...units))

/** Up to five of all Unicode scalar values, many of them white space or U+0000. */
const unicode = fc
  .array(
    fc.oneof(
      fc.constantFrom(0, 0x20, 0x09, 0x3000, 0xfeff),
      fc.integer({ min: 0, max: 0xd7ff }),
      fc.integer({ min: 0xe000, max: 0x10_ffff })
    ),
    { maxLength: 5 }
  )
  .map((codes) => String.fromCodePoint(...codes))

describe("storable text", () => {
  test("every Unicode scalar value but U+0000 is accepted", () => {
    const refused: Array<string> = []
    for (let start = 0; start < 0x11_0000; start += 0x400) {
      const block = Array.from({ length: 0x400 }, (_, index) => start + index)
        .filter((code) => code !== 0 && !(code >= 0xd800 && code <= 0xdfff))
        .map((code) => String.fromCodePoint(code))
      // Surrogates of neighbours do not pair up: each is followed by a letter.
      if (!storable(block.join("a"))) refused.push(start.toString(16))
    }
    expect(refused).toEqual([])
  })

  test("every surrogate without its partner is refused, wherever it stands", () => {
    const accepted = surrogates.filter((alone) =>
      [alone, `${alone}a`, `a${alone}`, `a${alone}b`, `🍎${alone}`, `${alone}🍎`].some(storable)
    )
    expect(accepted).toEqual([])
  })

  test("U+0000 is refused, wherever it stands", () => {
    for (const text of [nul, `a${nul}`, `${nul}a`, `a${nul}b`, `🍎${nul}🍎`]) expect(storable(text)).toBe(false)
  })

  test("any code units are accepted if and only if they are Unicode without U+0000", () => {
    fc.assert(
      fc.property(utf16, (text) => {
        // \p{Surrogate} under the u flag matches lone surrogates only.
        expect(storable(text)).toBe(!/\p{Surrogate}/u.test(text) && !text.split("").includes(nul))
      }),
      { numRuns: 2_000 }
    )
  })

  test("what is accepted survives UTF-8, as it goes to Postgres", () => {
    fc.assert(
      fc.property(utf16.filter(storable), (text) => {
        expect(new TextDecoder("utf-8", { ignoreBOM: true }).decode(new TextEncoder().encode(text))).toBe(text)
      })
    )
  })
})

describe("text with a limit", () => {
  const required = Schema.is(text(10))
  const optional = Schema.is(optionalText(10))

  test("the limit counts code points, as the document says it, and is itself allowed", () => {
    for (const is of [required, optional]) {
      expect([is("a".repeat(10)), is("a".repeat(11))]).toEqual([true, false])
      expect([is("🍎".repeat(10)), is(`${"🍎".repeat(10)}a`)]).toEqual([true, false])
    }
  })

  test("required text has something in it to read", () => {
    for (const blank of ["", " ", "\t\n", "\u00a0", "\u3000"]) {
      expect([required(blank), optional(blank)]).toEqual([false, true])
    }
    expect(required(" a ")).toBe(true)
  })

  test("any Unicode text within the limit is accepted if there is something to read in it", () => {
    fc.assert(
      fc.property(unicode, (any) => {
        const storable = !any.includes(nul)
        expect(optional(any)).toBe(storable)
        expect(required(any)).toBe(storable && any.trim() !== "")
      }),
      { numRuns: 1_000 }
    )
  })
})

describe("what people type", () => {
  const inputs = [
    ["ProductName", ProductName, "Apfelmus 🍎"],
    ["ProductDescription", ProductDescription, "süß"],
    ["Category", Category, "fruit"],
    ["PriceReason", PriceReason, "sale"],
    ["AdjustmentReason", AdjustmentReason, "counted"],
    ["PersonName", PersonName, "Ærøskøbing 李"],
    ["Password", Password, "correct horse 🔋"],
    ["Email", Email, "ada@example.com"]
  ] as const

  for (const [name, schema, good] of inputs) {
    test(`${name} takes Unicode and refuses what Postgres cannot store`, () => {
      const is = Schema.is(schema)
      expect(is(good)).toBe(true)
      for (const bad of [nul, "\ud83c", "\udf4e"]) {
        expect([is(good + bad), is(bad + good)]).toEqual([false, false])
      }
    })
  }
})
