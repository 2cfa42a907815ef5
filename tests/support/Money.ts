import { Effect } from "effect"
import { SqlClient, type SqlError } from "effect/sql"

/** What was taken and not given back, in minor units: for the orders, by our ledger, and by the gateways' own. */
export interface Taken {
  readonly paidOrders: number
  readonly paidMinor: number
  readonly ours: Readonly<Record<string, number>>
  readonly theirs: Readonly<Record<string, number>>
  /** Orders that are paid without exactly one captured attempt over all gateways, or not paid and with money at one. */
  readonly wrong: ReadonlyArray<object>
}

/** Adds up the books. All that is sold in these tests has two decimals. */
export const taken: Effect.Effect<Taken, SqlError.SqlError, SqlClient.SqlClient> = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const [orders] = yield* sql<{ paidOrders: number; paidMinor: number }>`
    select count(*)::int as "paidOrders", coalesce(sum(total_minor), 0)::float8 as "paidMinor"
    from orders.orders where status = 'PAID'`
  const ours = yield* sql<{ gateway: string; minor: number }>`
    select gateway, sum(l.amount_minor)::float8 as minor
    from payments.ledger l join payments.payments using (attempt_id)
    where account = 'psp_receivable' group by gateway`
  const theirs = yield* sql<{ gateway: string; minor: number }>`
    select gateway, (sum(amount) * 100)::float8 as minor from psp.ledger where account = 'merchant' group by gateway`
  const wrong = yield* sql`
    with held as (
      select order_id, count(*) filter (where status = 'captured') as captured,
        count(*) filter (where status = 'authorised') as authorised, sum(amount * 100) as minor
      from psp.attempts where status in ('captured', 'authorised') group by order_id
    )
    select order_id, o.status, captured::int, authorised::int, minor::text, o.total_minor::text as total
    from orders.orders o full join held using (order_id)
    where case when o.status = 'PAID' then (captured, authorised, minor) is distinct from (1, 0, o.total_minor)
      else captured is not null end`
  const byGateway = (rows: ReadonlyArray<{ readonly gateway: string; readonly minor: number }>) =>
    Object.fromEntries(rows.map(({ gateway, minor }) => [gateway, minor]))
  return {
    paidOrders: orders?.paidOrders ?? 0,
    paidMinor: orders?.paidMinor ?? 0,
    ours: byGateway(ours),
    theirs: byGateway(theirs),
    wrong
  }
})

export const sumOf = (minor: Readonly<Record<string, number>>): number =>
  Object.values(minor).reduce((sum, each) => sum + each, 0)
