import { expect, test } from "bun:test"
import { Schema } from "effect"
import * as fc from "fast-check"
import { beginOf, Day, dayMs } from "../src/kernel/Day.ts"

const written = (at: number) => new Date(at).toISOString().slice(0, 10)

test("every day begins at midnight in UTC, and the next one so many milliseconds later", () => {
  const moment = fc.date({ min: new Date("0001-01-01"), max: new Date("9999-12-30"), noInvalidDate: true })
  fc.assert(
    fc.property(moment, (at) => {
      const day = written(at.getTime())
      const begin = beginOf(day)
      expect(new Date(begin).toISOString()).toBe(`${day}T00:00:00.000Z`)
      expect(at.getTime() - begin).toBeWithin(0, dayMs)
      expect(beginOf(written(begin + dayMs))).toBe(begin + dayMs)
      expect(Schema.is(Day)(day)).toBe(true)
    })
  )
})

test("what is in no calendar, or written otherwise, is no day", () => {
  for (const text of ["2026-02-29", "2026-02-30", "2026-13-01", "2026-00-10", "2026-1-1", "26-01-01", "", "today"])
    expect([text, Schema.is(Day)(text)]).toEqual([text, false])
  expect(Schema.is(Day)("2028-02-29")).toBe(true)
})
