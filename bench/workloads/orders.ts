import { join } from "node:path"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import type { Stage } from "../Stage.ts"
import { pgbench, pgbenchPaced } from "../Twin.ts"
import { load, type Workload } from "../Workload.ts"

const script = (name: string) => join(import.meta.dir, "../sql", name)

/** For keys that no run has used, be it on a shop that is kept. */
const bench = crypto.randomUUID().slice(0, 8)
let runs = 0

const placing = (stage: Stage, clients: number, itemsOf: () => string) => (seconds: number, perSecond?: number) =>
  Effect.suspend(() => {
    runs += 1
    const tag = runs
    return load(stage, {
      clients,
      seconds,
      ...(perSecond === undefined ? {} : { perSecond }),
      next: (client, nth) => ({
        method: "POST",
        path: "/api/v1/orders",
        headers: `authorization: Bearer ${stage.shoppers[client]}\r\nidempotency-key: ${bench}-${tag}-${client}-${nth}\r\n`,
        body: `{"items":[${itemsOf()}]}`
      })
    })
  })

const line = (productId: string | undefined) => `{"productId":"${productId}","qty":1}`

/** POST /orders with two lines of different products, beside pgbench with as many clients. */
export const orders = (stage: Stage, binary: string, clients: number, wanted?: number): Workload => {
  const half = stage.productIds.length / 2
  const pick = (from: number) => line(stage.productIds[from + Math.floor(Math.random() * half)])
  const place = placing(stage, clients, () => `${pick(0)},${pick(half)}`)
  const twin = { binary, database: stage.database("twin"), script: script("place-order.sql"), clients }
  return {
    name: `orders-${clients}`,
    title: `POST /orders, 2 lines, ${clients} clients`,
    twin: `pgbench -M prepared, place-order.sql, ${clients} clients`,
    ...(wanted === undefined ? {} : { wanted }),
    ours: place,
    paced: place,
    theirs: (seconds) => Effect.promise(() => pgbench(twin, seconds)),
    theirsPaced: (seconds, perSecond) => Effect.promise(() => pgbenchPaced(twin, seconds, perSecond))
  }
}

/** Everybody wants the same product. */
export const hot = (stage: Stage, binary: string, clients: number): Workload => {
  const [productId] = stage.productIds
  const twin = { binary, database: stage.database("twin"), script: script("place-order-hot.sql"), clients }
  return {
    name: "hot",
    title: `POST /orders, one hot product, ${clients} clients`,
    twin: `pgbench -M prepared, place-order-hot.sql, ${clients} clients`,
    wanted: 4,
    ours: placing(stage, clients, () => line(productId)),
    theirs: (seconds) => Effect.promise(() => pgbench(twin, seconds)),
    check: Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const [sums] = yield* sql<{ reserved: string; held: string; ordered: string }>`
        select (select sum(reserved)::text from inventory.inventory_stock where product_id = ${productId}) as reserved,
          (select sum(qty)::text from inventory.reservations r, unnest(product_ids, quantities) as l (product_id, qty)
            where status = 'held' and product_id = ${productId}) as held,
          (select sum(qty)::text from orders.order_items join orders.orders using (order_id)
            where product_id = ${productId} and status = 'PENDING') as ordered`
      const even = sums?.reserved === sums?.held && sums?.held === sums?.ordered
      return `${even ? "even" : "UNEVEN"}: ${sums?.reserved} units reserved, ${sums?.held} by reservations, ${sums?.ordered} in orders`
    }).pipe(Effect.provide(stage.sql("shop")), Effect.orDie)
  }
}
