/** Customers as they came over time. All have the same password; some are signed in, some have a cart that they left. */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { CartUpdated } from "@merkato/domain/cart/CartEvents"
import { UserRegistered } from "@merkato/domain/identity/IdentityEvents"
import { dayMs } from "@merkato/domain/kernel/Day"
import type { Batch, Plan } from "./Size.ts"

/** One in so many is signed in at the end. */
const signedIn = 5
/** One in so many has left a cart. */
const withCart = 10

export const emailOf = (n: number) => `customer-${n}@history.example`

/** This share of the customers was there on the first day; the others came one after the other. */
export const fromTheFirstDay = 0.2

export const write = Effect.fn("People.write")(function* (plan: Plan, { first, beyond }: Batch, passwordHash: string) {
  const sql = yield* SqlClient.SqlClient
  const spanMs = plan.ends.getTime() - plan.begins.getTime()
  yield* sql`
    create temp table people on commit drop as
    select n, 'USER-' || history.id(at) as user_id, date_trunc('milliseconds', at) as at,
      '00-' || md5('people' || n) || '-' || left(md5('span' || n), 16) || '-00' as trace_parent, history.id(at) as correlation_id
    from generate_series(${first}::int, ${beyond - 1}::int) as n,
      lateral (select ${plan.begins}::timestamptz + interval '1 minute' + ${spanMs - 10 * 60_000}::float8 * interval '1 millisecond'
        * greatest(0, (n::float8 / ${plan.customers}::float8 - ${fromTheFirstDay}::float8) / ${1 - fromTheFirstDay}::float8)) as t (at)`
  yield* sql`insert into history.customers (n, user_id) select n, user_id from people`
  yield* sql`
    insert into identity.users (user_id, email, password_hash, name, region, created_at)
    select user_id, 'customer-' || n || '@history.example', ${passwordHash}, 'Customer ' || n, 'us', at from people order by n`
  yield* sql`insert into identity.roles (user_id, role) select user_id, 'shopper' from people order by n`
  yield* sql`
    insert into identity.sessions (session_id, user_id, refresh_hash, expires_at, created_at)
    select 'SESSION-' || history.id(${plan.ends}::timestamptz), user_id, encode(sha256(convert_to(user_id, 'UTF8')), 'hex'),
      ${new Date(plan.ends.getTime() + 30 * dayMs)}, ${plan.ends}
    from people where n % ${signedIn} = 0 order by n`
  yield* sql`
    insert into told (topic, event_type, key, version, at, trace_parent, correlation_id, payload, nth, event_id)
    select ${UserRegistered.topic}, ${UserRegistered.type}, user_id, 1, at, trace_parent, correlation_id,
      jsonb_build_object('userId', user_id), n, history.id(at) from people`

  // A cart is made empty and filled line by line, each time with an event.
  yield* sql`
    create temp table left_carts on commit drop as
    select n, user_id, trace_parent, at + interval '1 minute' as at, 'CART-' || history.id(at + interval '1 minute') as cart_id
    from people where n % ${withCart} = 0`
  yield* sql`
    insert into cart.carts (cart_id, owner_id, guest, currency, version, created_at, updated_at)
    select cart_id, user_id, false, 'USD', 3, at, at + interval '2 minutes' from left_carts order by n`
  yield* sql`
    create temp table left_lines on commit drop as
    select cart_id, p.product_id, line, 1 + (l.n + line) % 3 as qty
    from left_carts l cross join generate_series(1, 2) as line
    join history.products p on p.n = (l.n * 7 + line) % ${plan.products}`
  yield* sql`
    insert into cart.cart_items (cart_id, product_id, qty, line) select cart_id, product_id, qty, line from left_lines`
  yield* sql`
    insert into told (topic, event_type, key, version, at, trace_parent, correlation_id, payload, nth, event_id)
    select ${CartUpdated.topic}, ${CartUpdated.type}, cart_id, version, at + (version - 1) * interval '1 minute', trace_parent,
      history.id(at), jsonb_build_object('cartId', cart_id, 'userId', user_id, 'items', coalesce((
        select jsonb_agg(jsonb_build_object('productId', product_id, 'qty', qty) order by line)
        from left_lines i where i.cart_id = l.cart_id and line < version), '[]')), n, history.id(at)
    from left_carts l cross join generate_series(1, 3) as version`
})
