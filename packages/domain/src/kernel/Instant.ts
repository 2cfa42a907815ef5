import { DateTime, Schema } from "effect"
import { isDay } from "./Day.ts"

const written = /^\d{4}-\d{2}-\d{2}T(?:[01]\d|2[0-3]):\d{2}:\d{2}(?:\.\d{1,9})?(?:Z|[+-]\d{2}:\d{2})$/u

/** `Date` takes the 30th of February for the 2nd of March; a day that is not there is somebody's mistake. */
const beginsWithADay = Schema.makeFilter<string>((text) => !written.test(text) || isDay(text.slice(0, 10)), {
  expected: "a day that is in the calendar"
})

/** With its offset a time of the year 9999 may be one of the year 10000 in UTC, which RFC 3339 has no way to write. */
const hasFourDigits = Schema.makeFilter<DateTime.Utc>(
  (time) => {
    const year = DateTime.getPartUtc(time, "year")
    return year >= 0 && year <= 9_999
  },
  { expected: "a year from 0000 to 9999 in UTC" }
)

/** A point in time as people write it: RFC 3339, with its offset; to the millisecond. */
export const Instant = Schema.String.check(
  Schema.isPattern(written, { expected: "a time as in RFC 3339, such as 2026-01-31T08:00:00Z" }),
  beginsWithADay
).pipe(Schema.decodeTo(Schema.DateTimeUtcFromString.check(hasFourDigits)))
