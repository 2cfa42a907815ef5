import { Schema } from "effect"

/** Milliseconds of a day in UTC. */
export const dayMs = 24 * 60 * 60_000

/** When a day of the calendar (`isDay`) begins in UTC, in milliseconds since 1970. */
export const beginOf = (day: string): number => Date.parse(`${day}T00:00:00Z`)

export const isDay = (text: string): boolean => {
  const time = beginOf(text)
  return /^\d{4}-\d\d-\d\d$/.test(text) && !Number.isNaN(time) && new Date(time).toISOString().startsWith(text)
}

/** A day of the calendar, such as 2026-01-31. */
export const Day = Schema.String.check(Schema.makeFilter(isDay, { expected: "a day such as 2026-01-31" }))
