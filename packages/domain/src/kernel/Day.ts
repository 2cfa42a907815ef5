import { Schema } from "effect"

export const isDay = (text: string): boolean => {
  const time = Date.parse(`${text}T00:00:00Z`)
  return /^\d{4}-\d\d-\d\d$/.test(text) && !Number.isNaN(time) && new Date(time).toISOString().startsWith(text)
}

/** A day of the calendar, such as 2026-01-31. */
export const Day = Schema.String.check(Schema.makeFilter(isDay, { expected: "a day such as 2026-01-31" }))
