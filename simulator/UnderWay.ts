import type { VirtualBus } from "./shop/VirtualBus.ts"
import type { Gate } from "./wire/Gate.ts"
import type { Server } from "./wire/Server.ts"

/** What the shop is still busy with, in words: work that goes on by itself, and stock held until its time is over. */
export const underWay = async (server: Server, bus: VirtualBus, gate: Gate) => {
  const [row = []] = await server.query(
    `select (select count(*) from orders.sagas where step <> 'done'),
       (select count(*) from orders.idempotency where answer is null),
       (select count(*) from catalogue.outbox) + (select count(*) from cart.outbox) + (select count(*) from orders.outbox)
         + (select count(*) from payments.outbox) + (select count(*) from inventory.outbox)
         + (select count(*) from risk.outbox) + (select count(*) from pricing.outbox),
       (select count(*) from payments.payments where status = 'INITIATED')
         + (select count(*) from payments.refunds where status = 'REQUESTED'),
       (select count(*) from inventory.reservations where status = 'held'),
       (select count(*) from pricing.flash_sales where end_told_at is null)`
  )
  const [sagas, requests, unpublished, payments, held, sales] = row.map(Number)
  const lag = bus.subscribedGroups.reduce((sum, group) => sum + bus.lag(group), 0)
  const told = (count: number | undefined, what: string) => (count === 0 ? [] : [`${count} ${what}`])
  return {
    work: [
      ...told(sagas, "sagas"),
      ...told(requests, "requests without an answer"),
      ...told(unpublished, "unpublished events"),
      ...told(payments, "payments and refunds whose outcome is open"),
      ...told(sales, "flash sales that are still to start or end"),
      ...told(lag, "events not consumed"),
      ...told(gate.waiting, "statements that wait for a lock")
    ],
    held: told(held, "held reservations")
  }
}
