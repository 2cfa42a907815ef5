import { DateTime, Effect } from "effect"
import type { Region } from "@merkato/domain/kernel/Region"
import * as OrderEvents from "@merkato/domain/orders/OrderEvents"
import * as PaymentEvents from "@merkato/domain/payments/PaymentEvents"
import { type Evidence, type Invariant, objects } from "./Invariant.ts"

interface EventRow {
  readonly aggregate_id: string
  readonly event_type: string
  readonly version: number
  readonly occurred_at: string
  readonly region: Region
  readonly payload: unknown
}

/** The events of each aggregate, oldest first. */
const histories = async (evidence: Evidence, schema: string) => {
  const rows = await objects<EventRow>(
    evidence,
    `select aggregate_id, event_type, version, occurred_at, region, payload from ${schema}.events order by aggregate_id, version`
  )
  const found = new Map<string, Array<OrderEvents.StoredOrderEvent>>()
  for (const row of rows) {
    const history = found.get(row.aggregate_id) ?? []
    found.set(row.aggregate_id, history)
    history.push({
      eventType: row.event_type,
      version: row.version,
      occurredAt: DateTime.makeUnsafe(row.occurred_at),
      region: row.region,
      payload: row.payload
    })
  }
  return found
}

/** Of a refund, as both its row and its events have it. */
const refundFields = [
  "attempt_id",
  "order_id",
  "amount_minor",
  "currency",
  "status",
  "reason",
  "refusal",
  "updated"
] as const

/** Compares what the events say with what the rows say, field by field of the row. */
const differences = async <A extends object>(
  evidence: Evidence,
  options: {
    readonly schema: string
    readonly rows: string
    readonly id: string
    readonly rebuild: (history: ReadonlyArray<OrderEvents.StoredOrderEvent>) => Effect.Effect<A | undefined, unknown>
    readonly asRow: (rebuilt: A) => Readonly<Record<string, unknown>>
  }
) => {
  const told = await histories(evidence, options.schema)
  const rows = await objects<Readonly<Record<string, unknown>>>(evidence, options.rows)
  const problems: Array<string> = []
  for (const row of rows) {
    const id = String(row[options.id])
    const exit = Effect.runSyncExit(options.rebuild(told.get(id) ?? []))
    if (exit._tag === "Failure" || exit.value === undefined) {
      problems.push(`${id} cannot be rebuilt: ${String(exit._tag === "Failure" ? exit.cause : "no events")}`)
      continue
    }
    const rebuilt = options.asRow(exit.value)
    for (const [field, value] of Object.entries(rebuilt)) {
      if (JSON.stringify(row[field]) !== JSON.stringify(value)) {
        problems.push(`${id}: ${field} is ${JSON.stringify(row[field])}, its events say ${JSON.stringify(value)}`)
      }
    }
  }
  return problems
}

/** Orders and payments are what their events say: a row is only a copy. */
export const rebuilt: ReadonlyArray<Invariant> = [
  {
    name: "orders rebuilt from their events equal their rows",
    broken: (evidence) =>
      differences(evidence, {
        schema: "orders",
        id: "order_id",
        rows: `select o.*, (select json_agg(json_build_object('productId', product_id, 'qty', qty, 'priceMinor', price_minor)
                 order by line) from orders.order_items i where i.order_id = o.order_id) as items,
                 to_char(o.updated_at, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as updated from orders.orders o`,
        rebuild: OrderEvents.rebuild,
        asRow: (order) => ({
          user_id: order.userId,
          region: order.region,
          status: order.status,
          items: order.items.map(({ productId, qty, priceMinor }) => ({ productId, qty, priceMinor })),
          items_minor: order.itemsMinor,
          discount_minor: order.discountMinor,
          tax_minor: order.taxMinor,
          shipping_minor: order.shippingMinor,
          total_minor: order.totalMinor,
          currency: order.currency,
          reservation_id: order.reservationId,
          payment_attempt_id: order.paymentAttemptId,
          reservation_lost: order.reservationLost,
          reviewed: order.reviewed,
          version: order.version,
          updated: DateTime.formatIso(order.updatedAt)
        })
      })
  },
  {
    name: "payments rebuilt from their events equal their rows",
    broken: (evidence) =>
      differences(evidence, {
        schema: "payments",
        id: "attempt_id",
        rows: `select *, to_char(updated_at, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as updated from payments.payments`,
        rebuild: PaymentEvents.rebuild,
        asRow: (payment) => ({
          order_id: payment.orderId,
          user_id: payment.userId,
          amount_minor: payment.amountMinor,
          currency: payment.currency,
          status: payment.status,
          reason: payment.reason,
          gateway: payment.gateway,
          refunding_minor: payment.refundingMinor,
          refunded_minor: payment.refundedMinor,
          version: payment.version,
          updated: DateTime.formatIso(payment.updatedAt)
        })
      })
  },
  {
    name: "refunds rebuilt from their payments' events equal their rows",
    broken: async (evidence) => {
      const rows = await objects<Readonly<Record<string, unknown>>>(
        evidence,
        `select *, to_char(updated_at, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as updated from payments.refunds`
      )
      const told = new Map<string, Readonly<Record<string, unknown>>>()
      for (const history of (await histories(evidence, "payments")).values()) {
        for (const refund of Effect.runSync(PaymentEvents.rebuildRefunds(history))) {
          told.set(refund.refundId, {
            attempt_id: refund.attemptId,
            order_id: refund.orderId,
            amount_minor: refund.amountMinor,
            currency: refund.currency,
            status: refund.status,
            reason: refund.reason,
            refusal: refund.refusal,
            updated: DateTime.formatIso(refund.updatedAt)
          })
        }
      }
      const kept = new Map(rows.map((row) => [String(row["refund_id"]), row]))
      return [...new Set([...told.keys(), ...kept.keys()])].flatMap((id) =>
        refundFields
          .filter((field) => JSON.stringify(kept.get(id)?.[field]) !== JSON.stringify(told.get(id)?.[field]))
          .map(
            (field) =>
              `${id}: ${field} is ${String(kept.get(id)?.[field])}, its events say ${String(told.get(id)?.[field])}`
          )
      )
    }
  }
]
