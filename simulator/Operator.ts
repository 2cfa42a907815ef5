import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { between, stream } from "./kernel/Prng.ts"
import type { SimProcess } from "./kernel/World.ts"
import type { Memory } from "./model/Memory.ts"
import * as ShopProcess from "./shop/ShopProcess.ts"

/** Somebody with a console: locks rows in whatever order, for a while. The shop has to live with deadlocks it did not make. */
export const lockRudely = (surroundings: ShopProcess.Surroundings, operator: SimProcess, memory: Memory) => {
  const { world } = surroundings
  const draw = stream(world.seed, "operator")
  const pause = Effect.callback<void>((resume) => {
    world.timer(operator, between(draw, 1_000, 6_000), () => resume(Effect.void))
  })
  const turn = Effect.gen(function* () {
    yield* pause
    if (!world.faults.happens("rudeOperator")) return
    const sql = yield* SqlClient.SqlClient
    const products = memory.products.map(({ productId }) => productId).toReversed()
    const order = memory.orders.at(-between(draw, 1, 6))?.orderId
    const lock = (productId = "") =>
      Effect.andThen(
        sql`select 1 from inventory.inventory_stock where product_id = ${productId} for update`,
        Effect.sleep(between(draw, 5, 50))
      )
    const [last, ...others] = products.slice(between(draw, 0, 1))
    yield* sql.withTransaction(
      Effect.gen(function* () {
        if (order !== undefined && draw() < 0.4) {
          yield* sql`select 1 from orders.orders where order_id = ${order} for update`
        }
        yield* lock(last)
        yield* Effect.forEach(others, lock, { discard: true })
      })
    )
  })
  Effect.runForkWith(operator.context)(
    Effect.scoped(
      Effect.provide(
        Effect.forever(Effect.ignoreCause(turn)),
        ShopProcess.database({ ...surroundings, connections: 1 }, operator)
      )
    )
  )
}
