import type { SqlClient, Statement } from "effect/sql"

/** What must be true of the test gateways' books: each of them in itself, whatever the shop makes of it. */
export const gatewayRules = (
  sql: SqlClient.SqlClient
): ReadonlyArray<readonly [what: string, violations: Statement.Statement<object>]> => [
  [
    "every booking of a gateway sums to zero",
    sql`
      select gateway, booking_id, sum(amount)::text as sum from psp.ledger
      group by gateway, booking_id, currency having sum(amount) <> 0`
  ],
  [
    "a gateway's ledger holds and took for each attempt what the attempt says, less what was refunded",
    sql`
      with balance as (
        select gateway, attempt_id, coalesce(sum(amount) filter (where account = 'shopper'), 0) as shopper,
          coalesce(sum(amount) filter (where account = 'held'), 0) as held,
          coalesce(sum(amount) filter (where account = 'merchant'), 0) as merchant
        from psp.ledger group by gateway, attempt_id
      ), refunded as (
        select gateway, attempt_id, sum(amount) as refunded from psp.refunds group by gateway, attempt_id
      ), due as (
        select gateway, attempt_id, status, coalesce(refunded, 0) as refunded, amount,
          case when status = 'authorised' then amount else 0 end as held,
          case when status = 'captured' then amount - coalesce(refunded, 0) else 0 end as merchant
        from psp.attempts left join refunded using (gateway, attempt_id)
      )
      select gateway, attempt_id, due.status, due.amount::text, due.refunded::text, balance.held::text,
        balance.merchant::text, balance.shopper::text
      from due full join balance using (gateway, attempt_id)
      where due.status is null or coalesce(balance.held, 0) <> due.held or coalesce(balance.merchant, 0) <> due.merchant
        or coalesce(balance.shopper, 0) <> -(due.held + due.merchant)
        or due.refunded > case when due.status = 'captured' then due.amount else 0 end`
  ],
  [
    "a gateway's lines are in the currency of their attempt",
    sql`
      select gateway, booking_id from psp.ledger l join psp.attempts a using (gateway, attempt_id)
      where l.currency <> a.currency`
  ]
]
