import { Effect, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { Cart } from "@merkato/domain/cart/Cart"

const decode = Schema.decodeUnknownEffect(Schema.Array(Cart))

/** The SQL of carts. */
export const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const fields = sql.literal(
    `c.cart_id as "cartId", c.owner_id as "ownerId", c.guest, c.currency, c.version, coalesce(
      (select jsonb_agg(jsonb_build_object('productId', product_id, 'qty', qty) order by line)
       from cart.cart_items i where i.cart_id = c.cart_id), '[]') as items`
  )

  const insert = Effect.fn("CartStore.insert")(function* (cart: Cart, now: Date) {
    yield* sql`
      insert into cart.carts (cart_id, owner_id, guest, currency, version, created_at, updated_at)
      values (${cart.cartId}, ${cart.ownerId}, ${cart.guest}, ${cart.currency}, ${cart.version}, ${now}, ${now})`
  })

  const find = Effect.fn("CartStore.find")(function* (cartId: string) {
    const rows = yield* sql`select ${fields} from cart.carts c where c.cart_id = ${cartId}`
    return (yield* Effect.orDie(decode(rows)))[0]
  })

  /**
   * Reads a cart and keeps others from changing it until the transaction ends. Two statements: one that had to wait for
   * the lock would see the items as they were before it waited.
   */
  const lock = Effect.fn("CartStore.lock")(function* (cartId: string) {
    yield* sql`select from cart.carts where cart_id = ${cartId} for update`
    return yield* find(cartId)
  })

  /** A guest's carts, locked, oldest first. */
  const lockOfOwner = Effect.fn("CartStore.lockOfOwner")(function* (ownerId: string) {
    yield* sql`select from cart.carts where owner_id = ${ownerId} order by cart_id for update`
    const rows = yield* sql`select ${fields} from cart.carts c where c.owner_id = ${ownerId} order by c.cart_id`
    return yield* Effect.orDie(decode(rows))
  })

  const save = Effect.fn("CartStore.save")(function* (cart: Cart, now: Date) {
    yield* sql`delete from cart.cart_items where cart_id = ${cart.cartId}`
    yield* sql`
      with changed as (
        update cart.carts set version = ${cart.version}, updated_at = ${now} where cart_id = ${cart.cartId}
      )
      insert into cart.cart_items (cart_id, product_id, qty, line)
      select ${cart.cartId}, product_id, qty, line from unnest(
        ${cart.items.map((item) => item.productId)}::text[], ${cart.items.map((item) => item.qty)}::int[]
      ) with ordinality as i (product_id, qty, line)`
  })

  return { insert, find, lock, lockOfOwner, save }
})
