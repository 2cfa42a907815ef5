import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { type Answer, text } from "./Client.ts"
import type { ShopProcess } from "./ShopProcess.ts"
import type { Stops } from "./Stops.ts"

/** A way through the order process, and how it ends whatever happens on it. */
export interface Way {
  readonly name: string
  readonly kind: "checkout" | "pay"
  readonly units?: number
  readonly onShelf?: number
  readonly paymentToken?: string
  readonly expectedTotal?: number
  /**
   * What its shopper has done before, under a key or an order that is used again: asked in vain and canceled the order, or
   * paid it and had it held and released.
   */
  readonly before?: "canceled" | "released"
  /** The reservation ends by itself as soon as the process has come here. */
  readonly expiresAt?: string
  /** Steps before this one, and after that one, are another way's. */
  readonly from?: string
  readonly to?: string
  /** Where the process has lost its shop before the way begins, and how late it is when the next one finds it. */
  readonly after?: { readonly place: string; readonly lateBySeconds?: number }
  readonly ends: Ending
}

/** What there is in the end: what the shopper is told, and what is in the books. */
export interface Ending {
  readonly answer: string
  readonly orders: ReadonlyArray<string>
  /** Reservations; `back` is released or expired, whichever came first. */
  readonly goods: ReadonlyArray<string>
  /** At the gateways, as `gateway status`. */
  readonly attempts: ReadonlyArray<string>
  /** Units that left the shelf, and minor units of money that came. */
  readonly sold: number
  readonly earnedMinor: number
  readonly processes: ReadonlyArray<string>
}

const paid = (answer: string): Ending => ({
  answer,
  orders: ["PAID"],
  goods: ["committed"],
  attempts: ["soap captured"],
  sold: 1,
  earnedMinor: 100,
  processes: ["done paid"]
})

const nothing: Omit<Ending, "answer" | "processes"> = { orders: [], goods: [], attempts: [], sold: 0, earnedMinor: 0 }
const held = { ...nothing, orders: ["HELD"], goods: ["held"] }
const pending = { ...nothing, orders: ["PENDING"], goods: ["held"] }
const canceled = { ...nothing, orders: ["CANCELED"], goods: ["back"] }

/** From these units of 1.00 USD on an order is looked at, and from those on it is refused; see `purchaseSettings`. */
const [suspicious, fraudulent] = [40, 80]

export const ways: ReadonlyArray<Way> = [
  { name: "checkout", kind: "checkout", ends: paid("201 PAID") },
  { name: "pay", kind: "pay", ends: paid("200 PAID") },
  {
    name: "checkout, declined",
    kind: "checkout",
    paymentToken: "tok_declined",
    from: "gateway declined",
    ends: {
      ...canceled,
      answer: "402 payment_declined",
      attempts: ["soap declined"],
      processes: ["done payment_declined"]
    }
  },
  {
    name: "pay, declined",
    kind: "pay",
    paymentToken: "tok_declined",
    from: "gateway declined",
    ends: {
      ...pending,
      answer: "402 payment_declined",
      attempts: ["soap declined"],
      processes: ["done payment_declined"]
    }
  },
  ...(["checkout", "pay"] as const).map(
    (kind): Way => ({
      name: `${kind}, the goods are gone while the gateway is asked`,
      kind,
      expiresAt: "process at confirm",
      from: "process at void",
      ends: {
        ...canceled,
        answer: "409 not_payable",
        attempts: ["soap voided"],
        processes: ["done reservation_expired"]
      }
    })
  ),
  {
    name: "pay, the goods are gone before the gateway is asked",
    kind: "pay",
    expiresAt: "risk assessed",
    from: "process at done",
    ends: { ...canceled, answer: "409 not_payable", processes: ["done reservation_expired"] }
  },
  {
    name: "checkout, held for review",
    kind: "checkout",
    units: suspicious,
    from: "goods reserved",
    ends: { ...held, answer: "202 HELD", processes: ["done held"] }
  },
  {
    name: "pay, held for review",
    kind: "pay",
    units: suspicious,
    from: "goods held on",
    ends: { ...held, answer: "202 HELD", processes: ["done held"] }
  },
  {
    name: "checkout, blocked",
    kind: "checkout",
    units: fraudulent,
    from: "risk assessed",
    ends: { ...nothing, answer: "403 risk_blocked", processes: ["done risk_blocked"] }
  },
  {
    name: "pay, blocked",
    kind: "pay",
    units: fraudulent,
    from: "risk assessed",
    ends: { ...pending, answer: "403 risk_blocked", processes: ["done risk_blocked"] }
  },
  {
    name: "checkout, out of stock",
    kind: "checkout",
    units: 2,
    onShelf: 1,
    from: "process at done",
    ends: { ...nothing, answer: "409 out_of_stock", processes: ["done out_of_stock"] }
  },
  {
    name: "checkout, the price changed",
    kind: "checkout",
    expectedTotal: 0.5,
    from: "process begun at quote",
    ends: { ...nothing, answer: "409 price_changed", processes: ["done price_changed"] }
  },
  {
    name: "pay, the first gateway is away",
    kind: "pay",
    paymentToken: "tok_soap_down",
    from: "payment rerouted",
    to: "payment authorised",
    ends: { ...paid("200 PAID"), attempts: ["rest captured"] }
  },
  {
    name: "pay, both gateways are away",
    kind: "pay",
    paymentToken: "tok_all_down",
    from: "payment rerouted",
    ends: { ...pending, answer: "503 payment_unavailable", processes: ["done unavailable"] }
  },
  {
    name: "checkout, under the key of a canceled order",
    kind: "checkout",
    before: "canceled",
    paymentToken: "tok_all_down",
    to: "process at authorise",
    ends: {
      ...pending,
      answer: "503 payment_unavailable",
      orders: ["CANCELED", "PENDING"],
      goods: ["back", "held"],
      processes: ["done unavailable"]
    }
  },
  {
    name: "pay, released after a review",
    kind: "pay",
    before: "released",
    units: suspicious,
    to: "process at authorise",
    ends: {
      ...paid("200 PAID"),
      sold: suspicious,
      earnedMinor: suspicious * 100,
      processes: ["done held", "done paid"]
    }
  },
  {
    name: "checkout, taken over when the gateway held the money",
    kind: "checkout",
    after: { place: "gateway authorised" },
    ends: paid("201 PAID")
  },
  {
    name: "checkout, taken over too late",
    kind: "checkout",
    after: { place: "goods reserved", lateBySeconds: 61 },
    from: "process at release",
    ends: { ...paid("201 PAID"), goods: ["back", "committed"] }
  },
  {
    name: "checkout, taken over too late, before there were goods",
    kind: "checkout",
    after: { place: "risk assessed", lateBySeconds: 61 },
    from: "goods refused",
    to: "goods refused",
    ends: paid("201 PAID")
  }
]

const patient = { failuresInARow: 1_000, failingRate: { share: 1, ofLast: 10_000, atLeast: 10_000 } }
const unhurried = { attemptTimeoutMs: 9_000, deadlineMs: 9_500 }
const gateway = {
  ...unhurried,
  backoff: { kind: "exponential", firstMs: 1, factor: 2, maxMs: 10, jitter: true },
  breaker: patient,
  retryBudget: null
}

/** Limits of a shop that is stopped on its way: whoever waits there is not given up, and one's trouble is not another's. */
export const unhurriedPolicies = {
  "payment.soap": gateway,
  "payment.rest": gateway,
  "risk.assess": { ...unhurried, breaker: patient },
  "stock.reserve": { ...unhurried, breaker: patient }
}

/** By how much money an order is looked at or refused. */
export const riskRules = JSON.stringify({
  amount: {
    high: {
      USD: [
        { over: suspicious * 100 - 1, points: 60 },
        { over: fraudulent * 100 - 1, points: 95 }
      ]
    }
  }
})

/** Somebody on a way. */
export interface Purchase {
  readonly way: Way
  readonly name: string
  readonly userId: string
  readonly productId: string
  readonly onShelf: number
  /** Asks the shop that runs now; always under the same key. */
  readonly ask: () => Promise<Answer>
}

let people = 0

/** Fills a cart, or places an order: what comes before the process. */
export const prepare = async (shop: ShopProcess, stops: Stops, way: Way, name = way.name): Promise<Purchase> => {
  const { kind, units = 1, onShelf = units + 4, paymentToken = "tok_ok" } = way
  const userId = `SHOPPER-${++people}`
  const productId = await shop.onShelf(onShelf)
  const shopper = await shop.as(userId)
  if (way.expiresAt !== undefined) await stops.expireAt({ userId, place: way.expiresAt })
  const asking = async (path: string, body: unknown) => (await shop.as(userId)).post(path, body, { key: "the-key" })
  const purchase = { way, name, userId, productId, onShelf }
  if (kind === "pay") {
    const placed = await shopper.post("/api/v1/orders", { items: [{ productId, qty: units }] }, { key: "order" })
    const orderId = text(placed, "orderId")
    if (way.before === "released") {
      await shopper.post(`/api/v1/orders/${orderId}/pay`, { paymentToken }, { key: "held" })
      await (await shop.as("ADMIN", "admin")).post(`/api/v1/orders/${orderId}/release`)
      await stops.forget(userId)
    }
    return { ...purchase, ask: () => asking(`/api/v1/orders/${orderId}/pay`, { paymentToken }) }
  }
  const cartId = text(await shopper.post("/api/v1/carts"), "cartId")
  await shopper.request("PUT", `/api/v1/carts/${cartId}/items/${productId}`, { body: { qty: units } })
  const { expectedTotal } = way
  const body = { cartId, paymentToken, ...(expectedTotal === undefined ? {} : { expectedTotal }) }
  if (way.before === "canceled") {
    const orderId = text(await asking("/api/v1/checkout", body), "orderId")
    await shopper.post(`/api/v1/orders/${orderId}/cancel`)
    await stops.forget(userId)
  }
  return { ...purchase, ask: () => asking("/api/v1/checkout", body) }
}

export const inWords = ({ status, body }: Answer): string =>
  `${status} ${String(status < 300 ? body["status"] : body["code"])}`

/** What the books say of somebody's purchase. */
export const booksOf = (shop: ShopProcess, { onShelf, productId, userId }: Purchase) =>
  shop.sql(
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const [row] = yield* sql<Omit<Ending, "answer">>`
        select
          array(select status from orders.orders where user_id = ${userId} order by order_id) as orders,
          array(
            select case when status in ('released', 'expired') then 'back' else status end
            from inventory.reservations where product_ids @> array[${productId}::text] order by 1
          ) as goods,
          array(
            select a.gateway || ' ' || a.status from psp.attempts a join payments.payments p using (attempt_id)
            where p.user_id = ${userId} and a.status <> 'voided'
              or p.user_id = ${userId} and a.order_id <> '' order by 1
          ) as attempts,
          (select ${onShelf}::int - on_hand from inventory.inventory_stock where product_id = ${productId}) as sold,
          (select coalesce(sum(-l.amount_minor), 0)::bigint from payments.ledger l join payments.payments p using (attempt_id)
            where p.user_id = ${userId} and account = 'sales') as "earnedMinor",
          array(select step || coalesce(' ' || outcome, '') from orders.sagas
            where work #>> '{principal,userId}' = ${userId} order by 1) as processes`
      if (row === undefined) return yield* Effect.die(new Error("no books"))
      return row
    })
  )
