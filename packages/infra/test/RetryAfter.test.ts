import { expect, test } from "bun:test"
import { timeOf } from "../src/http/RetryAfter.ts"

const at = Date.UTC(1994, 10, 6, 8, 0, 0)
const named = Date.UTC(1994, 10, 6, 8, 49, 37)

const answers: ReadonlyArray<readonly [retryAfter: string, time: number | undefined]> = [
  ["0", at],
  [" 120 ", at + 120_000],
  // The three forms of a date (RFC 9110, section 5.6.7).
  ["Sun, 06 Nov 1994 08:49:37 GMT", named],
  ["Sunday, 06-Nov-94 08:49:37 GMT", named],
  ["Sun Nov  6 08:49:37 1994", named],
  ["-1", undefined],
  ["1.5", undefined],
  ["soon", undefined],
  ["", undefined],
  ["99999999999", undefined],
  ["1994-11-06T08:49:37Z", undefined],
  ["Sun, 99 Nov 1994 08:49:37 GMT", undefined]
]

test.each(answers)("%j is %p", (retryAfter, time) => {
  expect(timeOf(retryAfter, at)).toBe(time)
})
