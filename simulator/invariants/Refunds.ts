import { type Evidence, type Invariant, none, objects } from "./Invariant.ts"

interface RefundRow {
  readonly refund_id: string
  readonly attempt_id: string
  readonly amount_minor: number
  readonly status: string
}

const refundsOf = (evidence: Evidence) =>
  objects<RefundRow>(evidence, "select refund_id, attempt_id, amount_minor, status from payments.refunds")

/** What is given back was taken before, goes back once, and is in our books as in the providers'. */
export const refunds: ReadonlyArray<Invariant> = [
  none("every refund has ended", `select refund_id, attempt_id from payments.refunds where status = 'REQUESTED'`),
  none(
    "a payment is given back what its refunds say, and never more than was taken",
    `with given as (
       select attempt_id, sum(amount_minor) as minor from payments.refunds where status = 'REFUNDED' group by attempt_id
     )
     select attempt_id, status, amount_minor, refunding_minor, refunded_minor, given.minor
     from payments.payments left join given using (attempt_id)
     where refunded_minor <> coalesce(given.minor, 0) or refunding_minor <> 0 or refunded_minor > amount_minor
       or (given.minor > 0 and status <> 'CAPTURED')`
  ),
  none(
    "a refund is booked once when it is done, and never else",
    `with booked as (
       select booking_id, attempt_id, count(*) as times, sum(amount_minor) as minor
       from payments.ledger where account = 'refunds' group by booking_id, attempt_id
     )
     select refund_id, r.status, r.amount_minor, booking_id, booked.times, booked.minor
     from payments.refunds r full join booked
       on booking_id = 'refund-' || refund_id and booked.attempt_id = r.attempt_id
     where case when r.status = 'REFUNDED' then booked.times is distinct from 1 or booked.minor <> r.amount_minor
       else booking_id is not null end`
  ),
  {
    name: "a provider gave back what payments say, once and of the payment that it took",
    broken: async (evidence) => {
      const given = evidence.books.flatMap(({ name, entries }) =>
        [...entries.values()].flatMap(({ attemptId, refunds }) =>
          [...refunds].map(([refundId, minor]) => ({
            refundId,
            told: `${minor} of ${attemptId} (${name})`,
            attemptId,
            minor
          }))
        )
      )
      const rows = new Map((await refundsOf(evidence)).map((row) => [row.refund_id, row]))
      return [...new Set([...rows.keys(), ...given.map(({ refundId }) => refundId)])].flatMap((refundId) => {
        const ours = rows.get(refundId)
        const theirs = given.filter((each) => each.refundId === refundId)
        const [first] = theirs
        const right =
          ours?.status === "REFUNDED"
            ? theirs.length === 1 && first?.attemptId === ours.attempt_id && first.minor === ours.amount_minor
            : first === undefined
        if (right) return []
        const said = ours === undefined ? "nothing" : `${ours.status}, ${ours.amount_minor} of ${ours.attempt_id}`
        return [
          `refund ${refundId}: payments say ${said}; given back: ${theirs.map(({ told }) => told).join(", ") || "nothing"}`
        ]
      })
    }
  },
  {
    name: "a refund that was acknowledged comes to the end that was acknowledged",
    broken: async (evidence) => {
      const rows = new Map((await refundsOf(evidence)).map((row) => [row.refund_id, row]))
      return evidence.memory.acknowledged.flatMap((told) => {
        if (told._tag !== "Refund") return []
        const { refundId, attemptId, amountMinor } = told.refund
        const is = rows.get(refundId)
        const ended = is?.status === "REFUNDED" || is?.status === "REFUSED"
        const right = told.status === "REQUESTED" ? ended : is?.status === told.status
        if (right && is?.attempt_id === attemptId && is.amount_minor === amountMinor) return []
        const now = is === undefined ? "missing" : `${is.status}, ${is.amount_minor} of ${is.attempt_id}`
        return [`refund ${refundId} of ${amountMinor} of ${attemptId} was acknowledged as ${told.status} and is ${now}`]
      })
    }
  }
]
