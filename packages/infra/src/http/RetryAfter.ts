/** Seconds (RFC 9110, section 10.2.3). */
const isSeconds = /^\d{1,10}$/

/** A date as RFC 9110, section 5.6.7, wants it, and as it was written before: always GMT, which the last form does not say. */
const dates: ReadonlyArray<readonly [RegExp, zone: string]> = [
  [/^[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/, ""],
  [/^[A-Z][a-z]{5,8}, \d{2}-[A-Z][a-z]{2}-\d{2} \d{2}:\d{2}:\d{2} GMT$/, ""],
  [/^[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2} \d{4}$/, " GMT"]
]

/** The time that a `Retry-After` names, in milliseconds, for an answer that came at `at`; undefined when it is neither seconds nor a date. */
export const timeOf = (retryAfter: string, at: number): number | undefined => {
  const text = retryAfter.trim()
  if (isSeconds.test(text)) return at + Number(text) * 1_000
  const form = dates.find(([pattern]) => pattern.test(text))
  const time = form === undefined ? Number.NaN : Date.parse(text + form[1])
  return Number.isNaN(time) ? undefined : time
}
