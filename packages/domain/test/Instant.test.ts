import { describe, expect, test } from "bun:test"
import { DateTime, Option, Schema } from "effect"
import * as fc from "fast-check"
import { Instant } from "../src/kernel/Instant.ts"

const decode = Schema.decodeUnknownOption(Instant)
const inUtc = (text: string) => Option.getOrUndefined(Option.map(decode(text), DateTime.formatIso))

describe("a point in time", () => {
  test("is what was written, in UTC and to the millisecond", () => {
    const cases: ReadonlyArray<readonly [string, string]> = [
      ["2026-01-31T08:00:00Z", "2026-01-31T08:00:00.000Z"],
      ["2026-01-31T08:00:00.123456789+05:30", "2026-01-31T02:30:00.123Z"],
      ["2028-02-29T23:59:59-00:30", "2028-03-01T00:29:59.000Z"],
      ["2000-02-29T00:00:00Z", "2000-02-29T00:00:00.000Z"],
      ["0000-01-01T00:00:00Z", "0000-01-01T00:00:00.000Z"],
      ["9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"]
    ]
    for (const [text, utc] of cases) expect([text, inUtc(text)]).toEqual([text, utc])
  })

  test("is not on a day, at an hour or in a year that is not there", () => {
    const cases = [
      "2026-02-29T00:00:00Z",
      "2026-02-30T00:00:00Z",
      "2100-02-29T00:00:00Z",
      "2026-04-31T00:00:00Z",
      "2026-00-10T00:00:00Z",
      "2026-01-00T00:00:00Z",
      "2026-01-31T24:00:00Z",
      "2026-01-31T23:60:00Z",
      "2026-01-31T23:59:61Z",
      "2026-01-31T08:00:00+24:00",
      "9999-12-31T23:59:59-00:01",
      "0000-01-01T00:00:00+00:01",
      "+010000-01-01T00:00:00Z",
      "2026-01-31T08:00:00",
      "2026-01-31 08:00:00Z",
      "2026-01-31T08:00:00Z\n"
    ]
    for (const text of cases) expect([text, inUtc(text)]).toEqual([text, undefined])
  })

  test("is any there is, however it is written, and what is told of it can be read again", () => {
    const time = fc.date({
      min: new Date("0000-01-01T00:00:00Z"),
      max: new Date("9999-12-31T23:59:59.999Z"),
      noInvalidDate: true
    })
    fc.assert(
      fc.property(time, (date) => {
        expect(inUtc(date.toISOString())).toBe(date.toISOString())
      })
    )
  })
})
