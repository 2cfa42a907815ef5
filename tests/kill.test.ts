import { afterEach, describe, expect, test } from "bun:test"
import { Deferred, Effect, Fiber } from "effect"
import { SqlClient } from "effect/sql"
import { OrderId, type ProductId, ReservationId } from "@merkato/domain/kernel/Ids"
import { ownerOf } from "@merkato/infra/postgres/DataFolder"
import { transaction } from "@merkato/infra/postgres/Database"
import { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import { heldForNobody, lookInto, wrongAtRest, wrongNow } from "./support/Audit.ts"
import { Client, tokenFor } from "./support/Client.ts"
import { databaseOf, kill, killPostgres } from "./support/Crash.ts"
import { as, inShop } from "./support/InProcess.ts"
import { onShelf } from "./support/Market.ts"
import { freePort, postmasterOf, type Running, startApp, temporaryFolder } from "./support/Processes.ts"
import { openFor, stockUp } from "./support/Shoppers.ts"

const kills = 10
const shoppers = 12

const between = (fromMs: number, toMs: number) => fromMs + Math.random() * (toMs - fromMs)

/** What a test that fails half-way leaves behind. */
const left: Array<() => void> = []
afterEach(() => {
  for (const clear of left.splice(0).toReversed()) clear()
})

/** A shop on a data folder of its own, that is started again and again at the same port. */
const shopThatDies = async () => {
  const { path, remove } = temporaryFolder()
  left.push(remove, () => killPostgres(path))
  const port = await freePort()
  let running: Running | undefined
  left.push(() => kill(running?.pid ?? 0))
  const logs: Array<() => string> = []
  const start = async () => {
    running = await startApp("shop", ["--no-seed", "--data-dir", path, "--port", String(port)], {
      MERKATO_PAYMENT_TIMEOUT_MS: "500"
    })
    logs.push(running.output)
  }
  return {
    path,
    url: `http://127.0.0.1:${port}`,
    start,
    /** Starts it, and kills it somewhere on the way. */
    startInVain: async () => {
      const starting = start().catch(() => undefined)
      await Bun.sleep(between(100, 1_500))
      const owner = ownerOf(path)
      if (owner?.running === true) kill(owner.pid)
      await starting
      await running?.end("SIGKILL")
    },
    stop: () => running?.end("SIGTERM"),
    kill: () => kill(running?.pid ?? 0),
    killed: () => running?.ended,
    /**
     * What it called an error: being killed is no reason for one. (A process that it took over may stumble when Postgres
     * goes first.)
     */
    errors: () =>
      logs
        .flatMap((log) => log().split("\n"))
        .filter((line) => line.includes('"level":"ERROR"') && !line.includes("An order process stumbled"))
  }
}

/** People shop while the shop is killed again and again; then everything they were told is so, and nothing else is. */
const survives = async (options: {
  readonly strike: (shop: Awaited<ReturnType<typeof shopThatDies>>) => void
  readonly postgresSurvives: boolean
}) => {
  const shop = await shopThatDies()
  await shop.start()
  const admin = await tokenFor(shop.path, "ADMIN", "admin")
  const products = await stockUp(new Client(shop.url, admin))
  const people = await openFor({ url: shop.url, dataDir: shop.path, admin, products, shoppers })

  for (let nth = 1; nth <= kills; nth++) {
    await Bun.sleep(between(300, 1_500))
    const postmaster = postmasterOf(shop.path)
    options.strike(shop)
    await shop.killed()
    if (nth % 3 === 0) await shop.startInVain()
    await shop.start()
    people.shopIsBack()
    expect(postmasterOf(shop.path) === postmaster).toBe(options.postgresSurvives)
    const database = await databaseOf(shop.path)
    expect(await lookInto(database, wrongNow)).toEqual([])
    expect(await people.contradictions(database, "meanwhile")).toEqual([])
  }

  await people.stop()
  const database = await databaseOf(shop.path)
  expect(people.surprises).toEqual([])
  expect(shop.errors()).toEqual([])
  expect(await lookInto(database, wrongAtRest)).toEqual([])
  expect(await people.contradictions(database, "at the end")).toEqual([])
  expect(await people.replay(50)).toEqual([])
  const held = await lookInto(database, heldForNobody)
  console.log(
    `${kills} kills: ${people.summary}; held until their time is over, for no order: ${held.length} reservations`
  )
  await shop.stop()
}

describe("a shop that is killed under load keeps what it said, and does nothing twice or by halves", () => {
  test(
    "killed alone, and the next one takes over its Postgres",
    () => survives({ strike: (shop) => shop.kill(), postgresSurvives: true }),
    480_000
  )

  test("killed together with its Postgres", () => {
    const both = (shop: Awaited<ReturnType<typeof shopThatDies>>) => {
      const blows = [() => shop.kill(), () => killPostgres(shop.path)]
      for (const blow of Math.random() < 0.5 ? blows : blows.toReversed()) blow()
    }
    return survives({ strike: both, postgresSurvives: false })
  }, 480_000)
})

describe("what the kills brought to light", () => {
  const system = as("system", "service")

  test(
    "units that come back while a reservation waits for another product are its to have",
    () =>
      inShop(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const inventory = yield* InventoryRpc
          const ids = (name: string) => ({
            reservationId: ReservationId.make(`RES-${name}`),
            orderId: OrderId.make(`ORDER-${name}`)
          })
          const reserve = (name: string, products: ReadonlyArray<ProductId>) =>
            system(
              inventory.Reserve({
                ...ids(name),
                ttlMs: 60_000,
                items: products.map((productId) => ({ productId, qty: 1 }))
              })
            )

          // Locks are taken in the order of the products' ids, which is the order in which they came.
          const first = yield* onShelf(10)
          const scarce = yield* onShelf(1)
          yield* reserve("early", [scarce])
          const [locked, goOn] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
          const inTheWay =
            yield* sql`select from inventory.inventory_stock where product_id = ${first} for update`.pipe(
              Effect.andThen(Deferred.succeed(locked, undefined)),
              Effect.andThen(Deferred.await(goOn)),
              transaction,
              Effect.forkScoped
            )
          yield* Deferred.await(locked)
          const late = yield* Effect.forkScoped(reserve("late", [first, scarce]))
          yield* sql<{ waits: boolean }>`
          select exists (select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()) as waits
        `.pipe(Effect.repeat({ until: ([row]) => row?.waits === true }))
          yield* system(inventory.Release(ids("early")))
          yield* Deferred.succeed(goOn, undefined)
          yield* Fiber.join(inTheWay)
          expect(yield* Fiber.join(late)).toEqual({ orderId: ids("late").orderId })
          expect(yield* inventory.Levels({ productId: scarce })).toMatchObject({ onHand: 1, reserved: 1, available: 0 })
        })
      ),
    60_000
  )
})
