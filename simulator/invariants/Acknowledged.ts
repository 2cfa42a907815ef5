import { type Evidence, type Invariant, none, objects } from "./Invariant.ts"

interface OrderRow {
  readonly order_id: string
  readonly user_id: string
  readonly status: string
  readonly total_minor: number
}

const ordersOf = async (evidence: Evidence) =>
  new Map(
    (await objects<OrderRow>(evidence, "select order_id, user_id, status, total_minor from orders.orders")).map(
      (order) => [order.order_id, order]
    )
  )

/** What somebody was told is so, and stays so. */
export const acknowledged: ReadonlyArray<Invariant> = [
  {
    name: "nobody got an answer that they should not have got",
    broken: ({ memory }) => Promise.resolve(memory.complaints)
  },
  {
    name: "every acknowledged order, payment, cancellation and adjustment is in the state that was acknowledged",
    broken: async (evidence) => {
      const orders = await ordersOf(evidence)
      const adjustments = new Map(
        (
          await objects<{ readonly reason: string; readonly delta: number }>(
            evidence,
            "select reason, sum(delta) as delta from inventory.inventory_adjustment group by reason"
          )
        ).map(({ reason, delta }) => [reason, delta])
      )
      return evidence.memory.acknowledged.flatMap((told): ReadonlyArray<string> => {
        if (told._tag === "Refund") return []
        if (told._tag === "Adjusted") {
          const is = adjustments.get(told.reason)
          return is === told.delta ? [] : [`${told.reason} of ${told.delta} was acknowledged and is ${is ?? "missing"}`]
        }
        const orderId = told._tag === "Placed" ? told.order.orderId : told.orderId
        const is = orders.get(orderId)
        if (is === undefined) return [`order ${orderId} was acknowledged (${told._tag}) and is missing`]
        const wrong = (expected: string) => [`order ${orderId} was acknowledged as ${expected} and is ${is.status}`]
        switch (told._tag) {
          case "Placed":
            return is.user_id === told.userId && is.total_minor === told.order.totalMinor
              ? []
              : [
                  `order ${orderId} of ${told.userId} over ${told.order.totalMinor} is ${is.user_id}'s over ${is.total_minor}`
                ]
          case "Paid":
            return is.status === "PAID" || is.status === "FULFILLED" ? [] : wrong("paid")
          case "Canceled":
            return is.status === "CANCELED" ? [] : wrong("canceled")
          case "Fulfilled":
            return is.status === "FULFILLED" ? [] : wrong("fulfilled")
        }
      })
    }
  },
  none(
    "one key has one effect: each order is of one placement or checkout, and each that was answered exists",
    `with asked as (
       select answer -> 'value' ->> 'orderId' as order_id, true as answered from orders.idempotency
       where operation = 'place' and answer ->> '_tag' = 'Done'
       union all
       -- A checkout may end without an answer that names its order, or before there is one.
       select order_id, outcome in ('paid', 'held') from orders.sagas
       where request ->> 'operation' = 'checkout'
     ), counted as (
       select order_id, count(*) as times, bool_or(answered) as answered from asked group by 1
     )
     select order_id, times, answered from orders.orders full join counted using (order_id)
     -- An order of a checkout that ended without an answer may be followed by another under the same key, once it is canceled.
     where orders.order_id is not null and times is distinct from 1 and not (times is null and status = 'CANCELED')
       or answered and orders.order_id is null`
  ),
  none(
    "a request that was answered as paid has a paid order",
    `select i.key, o.order_id, o.status from orders.idempotency i
     left join orders.orders o on o.order_id = i.answer -> 'value' ->> 'orderId'
     where i.operation in ('pay', 'checkout') and i.answer ->> '_tag' = 'Done' and i.answer -> 'value' ->> 'status' = 'PAID'
       and (o.order_id is null or o.status not in ('PAID', 'FULFILLED'))`
  ),
  none("every request has ended", `select operation, key, lease_until from orders.idempotency where answer is null`)
]
