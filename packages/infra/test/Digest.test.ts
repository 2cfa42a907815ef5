import { expect, test } from "bun:test"
import { uuidV7 } from "@merkato/domain/kernel/Ids"
import { derivedId, derivedIdOf } from "../src/idempotency/Digest.ts"

const order = (millis: number) => `ORDER-${uuidV7(millis, () => 0.5)}`

test("an id derived from another is the same each time, and another one for anything else", () => {
  const made = derivedIdOf("PAY", order(1_000), "SAGA-1", "1")
  expect(derivedIdOf("PAY", order(1_000), "SAGA-1", "1")).toBe(made)
  const others = [
    derivedIdOf("PAY", order(1_000), "SAGA-1", "2"),
    derivedIdOf("PAY", order(1_000), "SAGA-2", "1"),
    derivedIdOf("PAY", order(1_001), "SAGA-1", "1"),
    derivedIdOf("PAY", `${order(1_000).slice(0, -1)}f`, "SAGA-1", "1")
  ]
  expect(new Set([made, ...others]).size).toBe(5)
  expect([made, ...others].map((id) => id.length)).toEqual(Array(5).fill("PAY-".length + 40))
})

test("it is in the order of time of the one that it follows from", () => {
  const times = Array.from({ length: 50 }, (_, n) => 1_767_604_134_264 + n * 37)
  const made = times.map((millis, n) => derivedIdOf("PAY", order(millis), String(n)))
  expect(made.toSorted()).toEqual(made)
})

test("from an id without a time there is a digest like any other", () => {
  expect(derivedIdOf("PAY", "ORDER-1", "2")).toBe(derivedId("PAY", "ORDER-1", "2"))
  expect(derivedIdOf("PAY", "ORDER-018f0000-0000-4000-8000-000000000000")).toMatch(/^PAY-[0-9a-f]{40}$/)
})
