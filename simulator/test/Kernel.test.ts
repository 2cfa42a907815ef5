import { describe, expect, test } from "bun:test"
import { Socket } from "node:net"
import { Clock, Effect, Fiber, Random } from "effect"
import { Faults, faultNames } from "../kernel/Faults.ts"
import { History } from "../kernel/History.ts"
import { stream } from "../kernel/Prng.ts"
import { World } from "../kernel/World.ts"
import * as GuardedCrypto from "../guard/Crypto.ts"
import { stand } from "../guard/Guard.ts"
import { ranges } from "../Progress.ts"
import { ProviderBook } from "../shop/ProviderBook.ts"

const quiet = (seed: number) => {
  const faults = new Faults(seed, new Set(faultNames))
  return new World(seed, new History(), faults)
}

/** Three fibers that sleep and draw; in which order they did what. */
const race = async (seed: number) => {
  const world = quiet(seed)
  const seen: Array<string> = []
  let left = 3
  for (const name of ["a", "b", "c"]) {
    const process = world.spawn(name)
    const fiber = Effect.runForkWith(process.context)(
      Effect.gen(function* () {
        for (let turn = 0; turn < 4; turn++) {
          yield* Effect.sleep(10)
          yield* Effect.callback<void>((resume) => world.operation(process, "io", () => resume(Effect.void)))
          seen.push(`${name}${turn} ${yield* Clock.currentTimeMillis} ${yield* Random.nextInt}`)
        }
      })
    )
    fiber.addObserver(() => (left -= 1))
  }
  await world.run(() => left === 0)
  return seen
}

describe("the world", () => {
  test("is the same for the same seed, and another for another", async () => {
    const first = await race(1)
    expect(first).toHaveLength(12)
    expect(await race(1)).toEqual(first)
    expect(await race(2)).not.toEqual(first)
  })

  test("lets time pass without waiting for it", async () => {
    const world = quiet(1)
    const process = world.spawn("sleeper")
    const before = world.now
    const fiber = Effect.runForkWith(process.context)(Effect.sleep("30 days"))
    await world.run(() => fiber.pollUnsafe() !== undefined)
    expect(world.now - before).toBeGreaterThanOrEqual(30 * 24 * 60 * 60_000)
  })

  test("kills without finalizers", async () => {
    const world = quiet(1)
    const victim = world.spawn("victim")
    const finalized: Array<string> = []
    const fiber = Effect.runForkWith(victim.context)(
      Effect.ensuring(
        Effect.sleep(1_000),
        Effect.sync(() => finalized.push("victim"))
      )
    )
    world.timer(world.outside, 500, () => world.kill(victim))
    let late = false
    world.timer(world.outside, 5_000, () => (late = true))
    await world.run(() => late)
    expect(finalized).toEqual([])
    expect(fiber.pollUnsafe()).toBeUndefined()
  })

  test("does not run a process that is paused", async () => {
    const world = quiet(1)
    const process = world.spawn("paused")
    const fiber = Effect.runForkWith(process.context)(Effect.andThen(Effect.sleep(10), Clock.currentTimeMillis))
    const before = world.now
    world.pause(process, 5_000)
    await world.run(() => fiber.pollUnsafe() !== undefined)
    const exit = await Effect.runPromise(Fiber.await(fiber))
    expect(exit._tag === "Success" && exit.value - before).toBe(5_000)
  })
})

describe("faults", () => {
  test("of one kind do not shift those of another", () => {
    const draws = (off: ReadonlyArray<(typeof faultNames)[number]>) => {
      const faults = new Faults(7, new Set(off))
      return Array.from({ length: 2_000 }, () => {
        faults.happens("requestLost")
        return faults.happens("replyLost")
      })
    }
    expect(draws([])).toContain(true)
    expect(draws(["requestLost"])).toEqual(draws([]))
    expect(draws(["replyLost"])).not.toContain(true)
  })

  test("streams of one seed are independent", () => {
    expect(stream(1, "a")()).toBe(stream(1, "a")())
    expect(stream(1, "a")()).not.toBe(stream(1, "b")())
    expect(stream(1, "a")()).not.toBe(stream(2, "a")())
  })
})

describe("the guard", () => {
  test("reports whatever is real, and gives the globals back", () => {
    const world = quiet(1)
    const real = { fetch: globalThis.fetch, random: Math.random, now: Date.now, setTimeout: globalThis.setTimeout }
    const guard = stand(world)
    const used = [
      () => fetch("http://localhost"),
      () => crypto.randomUUID(),
      () => crypto.getRandomValues(new Uint8Array(1)),
      () => GuardedCrypto.randomUUID(),
      () => GuardedCrypto.randomInt(2),
      () => GuardedCrypto.randomFillSync(new Uint8Array(1)),
      () => setImmediate(() => {}),
      () => setInterval(() => {}, 1),
      () => Bun.sleep(1),
      () => Bun.connect({ hostname: "localhost", port: 1, socket: {} }),
      () => new Socket().connect(1),
      () => Bun.serve({ port: 0, fetch: () => new Response() })
    ]
    try {
      for (const use of used) expect(use).toThrow("The simulated shop used")
      expect(Date.now()).toBe(world.now)
      expect(guard.leaks).toHaveLength(used.length)
    } finally {
      guard.lift()
    }
    expect({ fetch: globalThis.fetch, random: Math.random, now: Date.now, setTimeout: globalThis.setTimeout }).toEqual(
      real
    )
  })
})

describe("a provider's book", () => {
  const attempt = { attemptId: "PAY-1", orderId: "ORDER-1", amountMinor: 500, declined: false }

  test("holds and takes the money of an attempt once", () => {
    const book = new ProviderBook("test")
    expect([book.authorise(attempt), book.authorise(attempt)].map(({ status }) => status)).toEqual([
      "authorised",
      "authorised"
    ])
    expect([book.capture("PAY-1")?.status, book.void("PAY-1").status]).toEqual(["captured", "captured"])
    expect(book.refund("PAY-1", "R-1", 400)).toBeUndefined()
    expect(book.refund("PAY-1", "R-1", 400)).toBeUndefined()
    expect(book.refund("PAY-1", "R-2", 200)).toBe("more than was captured")
  })

  test("keeps to what it said about a refund", () => {
    const book = new ProviderBook("test")
    book.authorise(attempt)
    book.capture("PAY-1")
    expect(book.refund("PAY-1", "R-1", 100, () => true)).toBe("the account is closed")
    expect(book.refund("PAY-1", "R-1", 100)).toBe("refused before")
    expect(book.refund("PAY-1", "R-2", 100)).toBeUndefined()
    expect(book.refund("PAY-1", "R-2", 100, () => true)).toBeUndefined()
    expect([...(book.entries.get("PAY-1")?.refunds ?? [])]).toEqual([["R-2", 100]])
  })

  test("is silent about a refund for a while, and then no more", () => {
    const book = new ProviderBook("test")
    const silent = Array.from({ length: 8 }, (_, index) => book.isSilentAbout("R-1", () => index === 0))
    expect(silent).toEqual([true, true, true, true, true, true, false, false])
    expect(book.isSilentAbout("R-2", () => false)).toBe(false)
  })

  test("refuses an authorisation that comes after its void", () => {
    const book = new ProviderBook("test")
    book.void("PAY-1")
    expect(book.authorise(attempt).status).toBe("voided")
  })
})

test("ranges are what was done, in short", () => {
  expect(ranges([5, 1, 2, 3, 9, 8])).toEqual([
    [1, 3],
    [5, 5],
    [8, 9]
  ])
})
