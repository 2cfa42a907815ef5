/** When nothing goes wrong any more, the shop has to come to rest. */
import type { World } from "./kernel/World.ts"
import type { VirtualBus } from "./shop/VirtualBus.ts"
import { underWay } from "./UnderWay.ts"
import type { Gate } from "./wire/Gate.ts"
import type { Server } from "./wire/Server.ts"

/** Virtual time in which the shop has to come to rest once nothing goes wrong any more, in turns of `restMs`. */
const restTurns = 60
const restMs = 2_000
const reservationMs = 16 * 60_000
/** Longer than a gateway can hold a request back. */
const gatewaysMs = 60_000

/** Waits until nothing is under way any more; what still is after a long time, in words. */
export const comeToRest = async (
  world: World,
  gate: Gate,
  bus: VirtualBus,
  server: Server,
  review: (held: ReadonlyArray<string>) => Promise<void>
) => {
  const pass = async (ms: number) => {
    const until = world.now + ms
    world.timer(world.outside, ms, () => {})
    await world.run(() => world.now >= until)
  }
  let left: ReadonlyArray<string> = []
  let quiet = false
  for (let turn = 0; turn < restTurns; turn++) {
    await pass(restMs)
    bus.requeueAll()
    const waiting = await server.query(
      `select order_id from orders.orders
       where status = 'HELD' or (status = 'PENDING' and reviewed and payment_attempt_id is null) order by order_id`
    )
    if (waiting.length > 0) await review(waiting.flatMap(([orderId]) => orderId ?? []))
    const { held, work } = await underWay(server, bus, gate)
    left = [...work, ...held]
    world.history.remark(`  under way: ${left.join(", ")}`)
    if (work.length > 0) {
      // Longer and longer, as the reconciler of payments waits.
      world.leap(1_500 + 1_000 * turn)
      quiet = false
    } else if (held.length > 0) world.leap(reservationMs)
    else if (quiet) return []
    else {
      // What a gateway still has on its way comes now.
      quiet = true
      world.leap(gatewaysMs)
    }
  }
  return left
}
