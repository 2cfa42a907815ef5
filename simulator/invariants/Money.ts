import { type Evidence, type Invariant, none, objects } from "./Invariant.ts"

interface OrderRow {
  readonly order_id: string
  readonly status: string
  readonly total_minor: number
}

interface PaymentRow {
  readonly attempt_id: string
  readonly order_id: string
  readonly status: string
  readonly amount_minor: number
}

const ordersOf = (evidence: Evidence) =>
  objects<OrderRow>(evidence, "select order_id, status, total_minor from orders.orders")
const paymentsOf = (evidence: Evidence) =>
  objects<PaymentRow>(evidence, "select attempt_id, order_id, status, amount_minor from payments.payments")

const entriesOf = ({ books }: Evidence) =>
  books.flatMap(({ name, entries }) =>
    [...entries.values()].map((entry) => ({
      ...entry,
      gateway: name,
      netMinor: entry.status === "captured" ? entry.amountMinor - sum(entry.refunds.values()) : 0
    }))
  )

const sum = (values: Iterable<number>): number => [...values].reduce((all, each) => all + each, 0)

/** Money is taken once for what was sold and for nothing else; our books and the providers' say the same, to the cent. */
export const money: ReadonlyArray<Invariant> = [
  none(
    "every booking of the ledger sums to zero",
    `select booking_id, sum(amount_minor) from payments.ledger group by booking_id, currency having sum(amount_minor) <> 0`
  ),
  {
    name: "a sold order was charged once over all gateways, another one never",
    broken: async (evidence) => {
      const entries = entriesOf(evidence)
      const orders = await ordersOf(evidence)
      const known = new Set(orders.map((order) => order.order_id))
      return [
        ...entries
          .filter(({ netMinor, orderId }) => netMinor !== 0 && !known.has(orderId))
          .map(({ attemptId, orderId }) => `attempt ${attemptId} took money for ${orderId}, which does not exist`),
        ...orders.flatMap(({ order_id, status, total_minor }) => {
          const sold = status === "PAID" || status === "FULFILLED"
          // What a sold order was charged stays charged when it is given back.
          const charges = entries.filter(
            (entry) => entry.orderId === order_id && (sold ? entry.status === "captured" : entry.netMinor !== 0)
          )
          const right = sold ? charges.length === 1 && charges[0]?.amountMinor === total_minor : charges.length === 0
          if (right || (sold && total_minor === 0)) return []
          const told = charges
            .map(
              ({ gateway, attemptId, amountMinor, netMinor }) =>
                `${gateway} ${attemptId} ${amountMinor} (${netMinor} left)`
            )
            .join(", ")
          return [`order ${order_id} is ${status} over ${total_minor}; charged: ${told || "nothing"}`]
        })
      ]
    }
  },
  {
    name: "the ledger agrees with the gateways' books to the cent",
    broken: async (evidence) => {
      const booked = await objects<{ readonly attempt_id: string; readonly minor: number }>(
        evidence,
        `select attempt_id, sum(amount_minor) as minor from payments.ledger where account = 'psp_receivable' group by attempt_id`
      )
      const ledger = new Map(booked.map(({ attempt_id, minor }) => [attempt_id, minor]))
      const gateways = new Map<string, number>()
      for (const { attemptId, netMinor } of entriesOf(evidence)) {
        gateways.set(attemptId, (gateways.get(attemptId) ?? 0) + netMinor)
      }
      return [...new Set([...ledger.keys(), ...gateways.keys()])].flatMap((attempt) => {
        const ours = ledger.get(attempt) ?? 0
        const theirs = gateways.get(attempt) ?? 0
        return ours === theirs ? [] : [`attempt ${attempt}: the ledger says ${ours}, the gateways ${theirs}`]
      })
    }
  },
  {
    name: "no authorisation is left hanging",
    broken: async (evidence) => {
      const authorised = entriesOf(evidence).filter(({ status }) => status === "authorised")
      const rows = await paymentsOf(evidence)
      return authorised.map(({ gateway, attemptId, orderId }) => {
        const ours = rows.find((row) => row.attempt_id === attemptId)
        return `${gateway} holds money of ${attemptId} (order ${orderId}), which payments has as ${ours?.status ?? "unknown"}`
      })
    }
  },
  {
    name: "a gateway's book says of each attempt what payments say",
    broken: async (evidence) => {
      const rows = new Map((await paymentsOf(evidence)).map((row) => [row.attempt_id, row]))
      const attempts = new Map<string, Array<string>>()
      for (const { attemptId, status } of entriesOf(evidence)) {
        attempts.set(attemptId, [...(attempts.get(attemptId) ?? []), status.toUpperCase()])
      }
      return [...new Set([...rows.keys(), ...attempts.keys()])].flatMap((attempt) => {
        const theirs = attempts.get(attempt) ?? []
        const ours = rows.get(attempt)?.status
        // Several gateways may know an attempt; what counts is the one that did something with it.
        const telling = theirs.filter((status) => status !== "VOIDED" && status !== "DECLINED")
        const right =
          ours === "CAPTURED"
            ? telling.length === 1 && telling[0] === "CAPTURED"
            : (ours === "VOIDED" || ours === "DECLINED") && telling.length === 0
        return right
          ? []
          : [`attempt ${attempt}: payments say ${ours ?? "nothing"}, gateways ${theirs.join(", ") || "nothing"}`]
      })
    }
  }
]
