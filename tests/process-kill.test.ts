// The shop is killed at every step of the order process: just before what it wrote there is committed, and just after.
import { describe, expect, test } from "bun:test"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect } from "effect"
import { ProcessStep } from "@merkato/domain/orders/OrderProcess"
import { heldForNobody, wrongAtRest } from "./support/Audit.ts"
import type { Answer } from "./support/Client.ts"
import { temporaryFolder } from "./support/Processes.ts"
import {
  booksOf,
  inWords,
  prepare,
  type Purchase,
  riskRules,
  unhurriedPolicies,
  type Way,
  ways
} from "./support/Purchases.ts"
import { type ShopProcess, withShop } from "./support/ShopProcess.ts"
import { type Outcome, type Stop, Stops } from "./support/Stops.ts"

/** How many are stopped at the same time: fewer than the shop has connections, and no more than it takes over at once. */
const [atOnce, takenOverAtOnce] = [8, 4]

const chunks = <A>(all: ReadonlyArray<A>, size: number): ReadonlyArray<ReadonlyArray<A>> =>
  Array.from({ length: Math.ceil(all.length / size) }, (_, nth) => all.slice(nth * size, (nth + 1) * size))

/** Runs a test against a shop that can be stopped at every step. */
const withStops = async (run: (shop: ShopProcess, stops: Stops) => Promise<void>) => {
  const { path, remove } = temporaryFolder()
  const policies = join(path, "policies.json")
  writeFileSync(policies, JSON.stringify(unhurriedPolicies))
  const stopping = (shop: ShopProcess) =>
    Stops.install(shop.database).pipe(
      Effect.flatMap((stops) => Effect.promise(() => run(shop, stops))),
      Effect.scoped,
      Effect.runPromise
    )
  await withShop(stopping, { MERKATO_POLICIES: policies, MERKATO_RISK_RULES: riskRules }).finally(remove)
}

/** How long a process may take to its end once a shop is there for it; far more than it needs. */
const endsWithinMs = 30_000

const passing = new Set(["request_in_progress", "payment_in_progress", "service_unavailable", "rate_limited"])

/** Asks again under the same key until the shop has said its last word. */
const lastWord = async ({ ask, way }: Purchase): Promise<Answer> => {
  const deadline = Date.now() + endsWithinMs
  for (;;) {
    const answer = await ask()
    const code = String(answer.body["code"])
    const last = inWords(answer) === way.ends.answer || !(passing.has(code) || code === "payment_unavailable")
    if (last || Date.now() > deadline) return answer
    await Bun.sleep(50)
  }
}

/** What the books say, as soon as they say what they should; events have to arrive for it. */
const booksAtRest = async (shop: ShopProcess, purchase: Purchase) => {
  const { answer: _, ...expected } = purchase.way.ends
  const deadline = Date.now() + endsWithinMs
  for (;;) {
    const books = await booksOf(shop, purchase)
    if (Bun.deepEquals(books, expected) || Date.now() > deadline) return books
    await Bun.sleep(25)
  }
}

/** How a purchase has ended: for its shopper, who asks twice more, and in the books. */
const ending = async (shop: ShopProcess, purchase: Purchase) => {
  const first = await lastWord(purchase)
  const books = await booksAtRest(shop, purchase)
  // What is not for good is no answer to be kept.
  const second = first.status === 503 ? first : await purchase.ask()
  const same =
    inWords(first) === inWords(second) &&
    first.body["orderId"] === second.body["orderId"] &&
    (first.status === 503 || second.headers.get("idempotent-replayed") === "true")
  return { answer: same ? inWords(first) : `${inWords(first)}, then ${inWords(second)}`, ...books }
}

/** Every purchase has ended as its way should, and nothing is wrong in the shop. */
const allEnd = async (shop: ShopProcess, purchases: ReadonlyArray<Purchase>) => {
  const named = <A>(of: (purchase: Purchase) => Promise<A>) =>
    Promise.all(purchases.map(async (purchase) => [purchase.name, await of(purchase)] as const)).then(
      Object.fromEntries
    )
  const ends = await named((purchase) => ending(shop, purchase))
  expect([...errorsOf(shop)]).toEqual([])
  expect(ends).toEqual(await named(async ({ way }) => way.ends))
  const names = `after ${purchases.map(({ name }) => name).join("; ")}`
  expect([names, ...(await shop.sql(wrongAtRest))]).toEqual([names])
  expect([names, ...(await shop.sql(heldForNobody))]).toEqual([names])
}

const errorsOf = (shop: ShopProcess) =>
  shop
    .running()
    .output()
    .split("\n")
    .filter((line) => line.includes('"level":"ERROR"'))
    .map((line) => line.slice(0, 1_000))

/** Kills the shop where it stands, and sees to it that each purchase comes out as told. */
const kill = async (shop: ShopProcess, stops: Stops, outcomeOf: (stop: Stop) => Outcome) => {
  await shop.running().end("SIGKILL")
  await stops.settle(outcomeOf)
  await stops.overdue()
}

const stopsOf = (purchases: ReadonlyArray<Purchase>, placeOf: (purchase: Purchase) => string): ReadonlyArray<Stop> =>
  purchases.map((purchase) => ({ userId: purchase.userId, place: placeOf(purchase) }))

/** Asks for the purchases, and does not wait: the shop is going to die. */
const begin = (purchases: ReadonlyArray<Purchase>) => Promise.allSettled(purchases.map(({ ask }) => ask()))

/** Kills the shop where the ways begin after that; the next one is not started yet. */
const leadIn = async (shop: ShopProcess, stops: Stops, purchases: ReadonlyArray<Purchase>) => {
  await stops.close(stopsOf(purchases, ({ way }) => way.after?.place ?? ""))
  const asked = begin(purchases)
  await stops.reached()
  await kill(shop, stops, () => "after")
  await asked
  for (const { userId, way } of purchases) {
    await stops.age(userId, way.after?.lateBySeconds ?? 0)
    await stops.overdue()
    await stops.forget(userId)
  }
}

const processesEnd = async (shop: ShopProcess, purchases: ReadonlyArray<Purchase>) => {
  const deadline = Date.now() + endsWithinMs
  for (const purchase of purchases) {
    for (;;) {
      const { processes } = await booksOf(shop, purchase)
      if (processes.every((process) => process.startsWith("done"))) break
      if (Date.now() > deadline) throw new Error(`${purchase.name} does not end: ${processes}`)
      await Bun.sleep(25)
    }
  }
}

/** Somebody who goes a way and stands at a place of it. */
interface Visit {
  readonly way: Way
  readonly place: string
  readonly outcome?: Outcome
}

interface Death extends Visit {
  readonly outcome: Outcome
}

/** Goes each way without being killed on it: the places on it. */
const placesOn = async (shop: ShopProcess, stops: Stops, all: ReadonlyArray<Way>) => {
  const plain = await Promise.all(all.filter(({ after }) => !after).map((way) => prepare(shop, stops, way)))
  await allEnd(shop, plain)
  const overtaken = await Promise.all(all.filter(({ after }) => after).map((way) => prepare(shop, stops, way)))
  if (overtaken.length > 0) {
    await leadIn(shop, stops, overtaken)
    await shop.restart("SIGKILL")
    await processesEnd(shop, overtaken)
  }
  const trails = new Map<Way, ReadonlyArray<string>>()
  for (const { userId, way } of [...plain, ...overtaken]) {
    const trail = [...new Set(await stops.trail(userId))]
    const [from, to] = [trail.indexOf(way.from ?? trail[0] ?? ""), trail.indexOf(way.to ?? trail.at(-1) ?? "")]
    if (from < 0 || to < from) throw new Error(`${way.name} takes another way: ${trail.join(", ")}`)
    // Goods whose time is over come back by the clock or by the process, whichever is first.
    const own = trail.slice(from, to + 1).filter((place) => way.expiresAt === undefined || place !== "goods released")
    trails.set(way, own)
  }
  await allEnd(shop, overtaken)
  return trails
}

const prepareAt = <V extends Visit>(shop: ShopProcess, stops: Stops, visits: ReadonlyArray<V>) =>
  Promise.all(visits.map(async (visit) => ({ ...visit, ...(await prepare(shop, stops, visit.way, nameOf(visit))) })))

const nameOf = ({ way, place, outcome }: Visit) => `${way.name}: ${outcome ?? "at"} ${place}`

/**
 * A purchase for each visit, and what comes once each stands at its place. On a machine that is too busy for all of them to
 * get there before the first one may wait no longer, they come in smaller groups.
 */
const whenAllStand = async <V extends Visit>(
  shop: ShopProcess,
  stops: Stops,
  visits: ReadonlyArray<V>,
  then: (purchases: ReadonlyArray<V & Purchase>, asked: ReturnType<typeof begin>) => Promise<void>
): Promise<void> => {
  const purchases = await prepareAt(shop, stops, visits)
  const overtaken = purchases.some(({ way }) => way.after)
  if (overtaken) await leadIn(shop, stops, purchases)
  await stops.close(purchases)
  const asked = begin(overtaken ? [] : purchases)
  // Who takes over does so by itself.
  if (overtaken) await shop.restart("SIGKILL")
  const missing = await stops.reached().then(
    () => undefined,
    (error: unknown) => error
  )
  if (missing === undefined) return then(purchases, asked)
  if (visits.length === 1) throw missing
  await stops.open()
  await asked
  await processesEnd(shop, purchases)
  await shop.restart("SIGTERM")
  for (const half of chunks(visits, Math.ceil(visits.length / 2))) await whenAllStand(shop, stops, half, then)
}

/** One life of the shop for a purchase per death; each stands at its place when it is killed. */
const dies = (shop: ShopProcess, stops: Stops, deaths: ReadonlyArray<Death>): Promise<void> =>
  whenAllStand(shop, stops, deaths, async (purchases, asked) => {
    const outcomes = new Map(purchases.map(({ userId, outcome }) => [userId, outcome]))
    await kill(shop, stops, ({ userId }) => outcomes.get(userId) ?? "before")
    await asked
    await shop.restart("SIGKILL")
    await allEnd(shop, purchases)
  })

describe("killed at each step of the order process", () => {
  test(
    "every way through it ends, with money and stock right, and the shopper gets the answer",
    () =>
      withStops(async (shop, stops) => {
        const begun = performance.now()
        const places = await placesOn(shop, stops, ways)
        // Every step is on one of the ways, but for where only processes of an older shop stand.
        const steps = [...places.values()]
          .flat()
          .flatMap((place) => /^process (?:begun )?at (.*)/.exec(place)?.[1] ?? [])
        expect(new Set([...steps, "capture"])).toEqual(new Set(ProcessStep.literals))
        const deaths = [...places].flatMap(([way, trail]) =>
          trail.flatMap(
            (place): ReadonlyArray<Death> => [
              { way, place, outcome: "before" },
              { way, place, outcome: "after" }
            ]
          )
        )
        const plain = deaths.filter(({ way }) => !way.after)
        // One statement takes over whatever is overdue: who stops there stops everybody.
        const alone = deaths.filter(({ place }) => place === "process taken over")
        const overtaken = deaths.filter((death) => death.way.after && !alone.includes(death))
        for (const batch of [...chunks(plain, atOnce), ...chunks(overtaken, takenOverAtOnce), ...chunks(alone, 1)]) {
          await dies(shop, stops, batch)
        }
        const seconds = Math.round((performance.now() - begun) / 1_000)
        console.log(`${deaths.length} deaths on ${places.size} ways, in ${seconds} s`)
      }),
    600_000
  )
})

/** Waits until the shop says that it stops. */
const draining = async (shop: ShopProcess) => {
  const deadline = Date.now() + endsWithinMs
  for (;;) {
    const said = await fetch(`${shop.url()}/readyz`).then((response) => response.text())
    if (said.includes("draining")) return
    if (Date.now() > deadline) throw new Error("the shop was told to stop, and does not")
    await Bun.sleep(10)
  }
}

/** The exit code of a shop that was told to stop and did (128 + SIGINT, as `start-stop.test.ts` has it). */
const stopped = 130

/** Somebody at each place of each way. */
const atEachPlace = (trails: ReadonlyMap<Way, ReadonlyArray<string>>) =>
  [...trails].flatMap(([way, trail]) => trail.map((place) => ({ way, place })))

describe("told to stop at each step of the order process", () => {
  test(
    "requests in flight are answered for good, and nothing is left over",
    () =>
      withStops(async (shop, stops) => {
        const plain = ways.filter(({ after }) => !after)
        const trails = await placesOn(shop, stops, plain)
        for (const batch of chunks(atEachPlace(trails), atOnce)) {
          await whenAllStand(shop, stops, batch, async (purchases, asked) => {
            const ends = shop.running().end("SIGTERM")
            await draining(shop)
            await stops.open()
            const answers = (await asked).map((answer) =>
              answer.status === "fulfilled" ? inWords(answer.value) : "none"
            )
            expect(purchases.map(({ name }, nth) => [name, answers[nth]])).toEqual(
              purchases.map(({ name, way }) => [name, way.ends.answer])
            )
            expect(await ends).toBe(stopped)
            expect(errorsOf(shop)).toEqual([])
            await shop.restart("SIGTERM")
            await allEnd(shop, purchases)
          })
        }
      }),
    300_000
  )

  test(
    "what does not end in time is not lost: the shop stops all the same, and the next one takes it over",
    () =>
      withStops(async (shop, stops) => {
        const trails = await placesOn(
          shop,
          stops,
          ways.filter(({ name }) => name === "checkout")
        )
        const visits = atEachPlace(trails).filter((_, nth) => nth % 2 === 0)
        await whenAllStand(shop, stops, visits, async (purchases, asked) => {
          expect(await shop.running().end("SIGTERM")).toBe(stopped)
          await stops.settle(() => "before")
          await stops.overdue()
          const answers = (await asked).map((answer) => (answer.status === "fulfilled" ? answer.value.status : 503))
          expect(answers).toEqual(purchases.map(() => 503))
          expect(errorsOf(shop)).toEqual([])
          await shop.restart("SIGTERM")
          await allEnd(shop, purchases)
        })
      }),
    300_000
  )

  test(
    "a process that is being taken over is left to the next shop",
    () =>
      withStops(async (shop, stops) => {
        const overtaken = ways.filter(({ name }) => name === "checkout, taken over when the gateway held the money")
        const trails = await placesOn(shop, stops, overtaken)
        const visits = atEachPlace(trails).filter(({ place }) => place !== "process taken over")
        for (const batch of chunks(visits, takenOverAtOnce)) {
          await whenAllStand(shop, stops, batch, async (purchases) => {
            expect(await shop.running().end("SIGTERM")).toBe(stopped)
            await stops.settle(() => "before")
            await stops.overdue()
            expect(errorsOf(shop)).toEqual([])
            await shop.restart("SIGTERM")
            await allEnd(shop, purchases)
          })
        }
      }),
    300_000
  )
})
