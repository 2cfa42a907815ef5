import { Effect, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { Cart } from "@merkato/domain/cart/Cart"
import { CartUpdated } from "@merkato/domain/cart/CartEvents"
import { dayMs } from "@merkato/domain/kernel/Day"
import * as Ids from "@merkato/domain/kernel/Ids"
import type { Item } from "@merkato/domain/pricing/Quote"
import { guestTokenSeconds } from "@merkato/infra/auth/Tokens"
import * as Retention from "@merkato/infra/context/Retention"
import { EventStore } from "@merkato/infra/events/EventStore"
import type { Stamp } from "@merkato/infra/events/Stamp"
import * as Combined from "@merkato/infra/postgres/Combined"
import { retryLostRace } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"

const decode = Schema.decodeUnknownEffect(Schema.Array(Cart))

/** Whose guest's token has expired, and a day more: nobody can look at them, or merge them into a cart of their own. */
export const lostItems: Retention.Passing = {
  table: "cart_items",
  age: Retention.byId("cart_id", "CART-"),
  days: (guestTokenSeconds * 1_000) / dayMs + 1,
  where: (sql) => sql`
    (select exists (select from cart.carts c where c.cart_id = cart_items.cart_id and c.guest))`
}

/**
 * With nothing in them, and untouched for so long. What a shopper has left in a cart stays. Who changes one meanwhile either
 * is seen by its `updated_at`, or writes it anew as the version after the one that was empty.
 */
export const emptyCarts: Retention.Passing = {
  table: "carts",
  age: Retention.byId("cart_id", "CART-"),
  days: 90,
  setting: "MERKATO_KEEP_EMPTY_CARTS_DAYS",
  where: (sql, before) => sql`
    updated_at < ${before} and not (select exists (select from cart.cart_items i where i.cart_id = carts.cart_id))`
}

/** A version of a cart, with the items of the version before it. */
export interface Change {
  readonly cart: Cart
  readonly before: ReadonlyArray<Item>
  readonly stamp: Stamp
}

/** The same with the id of its event. */
interface Identified extends Change {
  readonly eventId: string
}

/** Items on a line where there was another or none. */
const itemsSet = ({ cart: { cartId, items }, before }: Change) =>
  items.flatMap((item, index) => {
    const known = before[index]
    return known?.productId === item.productId && known.qty === item.qty ? [] : [{ cartId, ...item, line: index + 1 }]
  })

/** Items that are in no more. */
const itemsGone = ({ cart: { cartId, items }, before }: Change) => {
  if (before.length === 0) return []
  const present = new Set(items.map(({ productId }) => productId))
  return before.flatMap(({ productId }) => (present.has(productId) ? [] : [{ cartId, productId }]))
}

/** The SQL of carts. An item's line is its place in the cart, from 1. */
export const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const events = yield* EventStore

  /** The carts that there are, with their items as of the same moment. "offset 0" keeps it a look-up by key for each. */
  const read = Tracing.fn("CartStore.read")(function* (cartIds: ReadonlyArray<string>) {
    const rows = yield* sql`
      select c.cart_id as "cartId", c.owner_id as "ownerId", c.guest, c.currency, c.orders_taken as "ordersTaken",
        c.version, coalesce((select jsonb_agg(jsonb_build_object('productId', product_id, 'qty', qty) order by line)
          from cart.cart_items i where i.cart_id = c.cart_id), '[]') as items
      from unnest(${cartIds}::text[]) as wanted (cart_id) cross join lateral (
        select * from cart.carts where cart_id = wanted.cart_id offset 0
      ) c`
    return new Map<string, Cart>((yield* Effect.orDie(decode(rows))).map((cart) => [cart.cartId, cart]))
  })

  const offerRead = yield* Combined.make({
    name: "CartStore.find together",
    together: (cartIds: ReadonlyArray<string>) =>
      Effect.map(read([...new Set(cartIds)]), (carts) => cartIds.map((cartId) => carts.get(cartId)))
  })

  /** The cart as it is now, read with those that others ask for at the same moment. */
  const find = (cartId: string) => Tracing.withSpan("CartStore.find")(offerRead(cartId))

  /** The carts of a guest or user, oldest first. */
  const idsOf = Tracing.fn("CartStore.idsOf")(function* (ownerId: string) {
    const rows = yield* sql<{ cartId: Ids.CartId }>`
      select cart_id as "cartId" from cart.carts where owner_id = ${ownerId} order by cart_id`
    return rows.map(({ cartId }) => cartId)
  })

  /**
   * Reads carts and keeps others from changing them until the transaction ends. Two statements: one that had to wait for
   * a lock would see the items as they were before it waited.
   */
  const lock = Tracing.fn("CartStore.lock")(function* (cartIds: ReadonlyArray<string>) {
    yield* sql`
      select from (select distinct cart_id from unnest(${cartIds}::text[]) as w (cart_id) order by cart_id) wanted
      cross join lateral (select from cart.carts where cart_id = wanted.cart_id offset 0 for update) c`
    return yield* read(cartIds)
  })

  /**
   * Writes versions of carts and their events as one statement; for each, whether it was written: not when its cart has
   * not the version before it (any more). No two may be of the same cart. The insertion takes the row's lock and looks at
   * the version then, in the order of the ids; a cart whose version is the expected one has the expected items. Waits at
   * most `lockTimeoutMs` for a lock, unless that is 0.
   */
  const writeAll = Tracing.fn("CartStore.writeAll")(function* (
    changes: ReadonlyArray<Identified>,
    lockTimeoutMs: number
  ) {
    const each = <A>(of: (change: Identified) => A) => changes.map(of)
    const set = changes.flatMap(itemsSet)
    const gone = changes.flatMap(itemsGone)
    const rows = yield* sql<{ cartId: string }>`
      with written as (
        insert into cart.carts as known (cart_id, owner_id, guest, currency, orders_taken, version, created_at, updated_at)
        select cart_id, owner_id, guest, currency, orders_taken, version, at, at from unnest(
          ${each(({ cart }) => cart.cartId)}::text[],
          ${each(({ cart }) => cart.ownerId)}::text[],
          ${each(({ cart }) => cart.guest)}::boolean[],
          ${each(({ cart }) => cart.currency)}::text[],
          ${each(({ cart }) => cart.ordersTaken)}::int[],
          ${each(({ cart }) => cart.version)}::int[],
          ${each(({ stamp }) => stamp.occurredAt.toISOString())}::text[]::timestamptz[]
        ) as c (cart_id, owner_id, guest, currency, orders_taken, version, at),
          set_config('lock_timeout', ${String(lockTimeoutMs)}, true)
        order by cart_id
        on conflict (cart_id) do update set orders_taken = excluded.orders_taken, version = excluded.version,
          updated_at = excluded.updated_at
          where known.version = excluded.version - 1
        returning cart_id
      ), set_rows as (
        insert into cart.cart_items (cart_id, product_id, qty, line)
        select cart_id, product_id, qty, line from written join unnest(
          ${set.map(({ cartId }) => cartId)}::text[],
          ${set.map(({ productId }) => productId)}::text[],
          ${set.map(({ qty }) => qty)}::int[],
          ${set.map(({ line }) => line)}::int[]
        ) as i (cart_id, product_id, qty, line) using (cart_id)
        on conflict (cart_id, product_id) do update set qty = excluded.qty, line = excluded.line
      ), ${
        gone.length === 0
          ? sql.literal("")
          : sql`gone_rows as (
              delete from cart.cart_items i using written join unnest(
                ${gone.map(({ cartId }) => cartId)}::text[],
                ${gone.map(({ productId }) => productId)}::text[]
              ) as g (cart_id, product_id) using (cart_id)
              where i.cart_id = g.cart_id and i.product_id = g.product_id
            ),`
      } ${events.appendingEach(
        each(({ cart: { cartId, version, ownerId, items }, eventId, stamp }) => ({
          event: CartUpdated.of(cartId, version, { cartId, userId: ownerId, items }),
          eventId,
          stamp
        })),
        sql`(select cart_id as id from written) as written`
      )}
      select cart_id as "cartId" from written`
    const written = new Set(rows.map(({ cartId }) => cartId))
    if (written.size > 0) yield* sql.afterCommit(events.committed)
    return each(({ cart }) => written.has(cart.cartId))
  })

  const identified = (change: Change) => Effect.map(Ids.next, (eventId): Identified => ({ ...change, eventId }))

  const offerWrite = yield* Combined.make({
    name: "CartStore.write together",
    together: (changes: ReadonlyArray<Identified>, lockTimeoutMs) =>
      writeAll(changes, lockTimeoutMs).pipe(retryLostRace),
    keyOf: ({ cart }) => cart.cartId
  })

  /** Writes a version of a cart with those of the same moment; false when there is one of that number already. */
  const write = (change: Change) =>
    Effect.flatMap(identified(change), offerWrite).pipe(Tracing.withSpan("CartStore.write"))

  /** Writes versions of carts that the caller's transaction has locked. */
  const writeLocked = Tracing.fn("CartStore.writeLocked")(function* (changes: ReadonlyArray<Change>) {
    if (changes.length === 0) return
    const written = yield* writeAll(yield* Effect.forEach(changes, identified), 0)
    if (written.includes(false)) return yield* Effect.die(new Error("A locked cart was changed by somebody else"))
  })

  return { find, idsOf, lock, write, writeLocked }
})
