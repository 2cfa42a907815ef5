import { Context, Effect, Layer, Result } from "effect"
import { Cart, CartFull, CartNotFound, InvalidGuestToken, merge, without } from "@merkato/domain/cart/Cart"
import { ProductNotFound } from "@merkato/domain/catalogue/Product"
import * as Ids from "@merkato/domain/kernel/Ids"
import type { Forbidden, ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { regionCurrency } from "@merkato/domain/kernel/Region"
import { Principal, RequestContext } from "@merkato/domain/kernel/RequestContext"
import { type Item, maxLines } from "@merkato/domain/pricing/Quote"
import { guestTokenSeconds, Tokens } from "@merkato/infra/auth/Tokens"
import { allowed, authorize } from "@merkato/infra/authorizer/Authorizer"
import * as Provided from "@merkato/infra/context/Provided"
import { type Stamp, stamp } from "@merkato/infra/events/Stamp"
import { orUnavailable, transaction } from "@merkato/infra/postgres/Database"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import * as CartStore from "./CartStore.ts"

/** What was ordered from a cart, and whose event tells of it. */
export interface Ordered {
  readonly cartId: Ids.CartId
  readonly items: ReadonlyArray<Item>
  readonly stamp: Stamp
}

/** The use cases of carts, of users and of guests. */
export class Carts extends Context.Service<
  Carts,
  {
    /** A new cart; for a stranger also the token of the guest who owns it. */
    readonly create: Effect.Effect<
      { readonly cart: Cart; readonly guestToken?: string },
      Forbidden | ServiceUnavailable
    >
    get(cartId: Ids.CartId): Effect.Effect<Cart, CartNotFound | ServiceUnavailable>
    setItem(
      item: Item & { readonly cartId: Ids.CartId }
    ): Effect.Effect<Cart, CartNotFound | CartFull | ProductNotFound | ServiceUnavailable>
    removeItem(item: {
      readonly cartId: Ids.CartId
      readonly productId: Ids.ProductId
    }): Effect.Effect<Cart, CartNotFound | ServiceUnavailable>
    merge(request: {
      readonly cartId: Ids.CartId
      readonly guestToken: string
    }): Effect.Effect<Cart, CartNotFound | InvalidGuestToken | ServiceUnavailable>
    /** Takes out what was ordered, from all the carts or none; what came in since stays. */
    takeOrdered(ordered: ReadonlyArray<Ordered>): Effect.Effect<void, ServiceUnavailable>
  }
>()("merkato/cart/Carts") {
  static readonly layer = Layer.effect(
    Carts,
    Effect.gen(function* () {
      const store = yield* CartStore.make
      const tokens = yield* Tokens
      const catalogue = yield* CatalogueRpc
      const provided = yield* Provided.provided
      const orAway = orUnavailable("cart")

      const create = Effect.gen(function* () {
        yield* authorize("cart.create")
        const { principal } = yield* RequestContext
        const stranger = principal.role === "anonymous"
        const ownerId = stranger ? yield* Ids.nextGuestId : principal.userId
        const cart = new Cart({
          cartId: yield* Ids.nextCartId,
          ownerId,
          guest: stranger || principal.role === "guest",
          items: [],
          currency: regionCurrency[principal.region],
          version: 1
        })
        const made = yield* store.write({ cart, before: [], stamp: yield* stamp })
        if (!made) return yield* Effect.die(new Error(`There is a cart ${cart.cartId} already`))
        if (!stranger) return { cart }
        const guest = new Principal({ userId: ownerId, role: "guest", region: principal.region })
        return { cart, guestToken: yield* tokens.issue(guest, guestTokenSeconds) }
      }).pipe(orAway, provided, Effect.withSpan("Carts.create"))

      /** The cart, if it is the caller's; else it does not exist for them. */
      const owned = Effect.fnUntraced(function* (cartId: Ids.CartId, cart: Cart | undefined) {
        if (cart === undefined || !(yield* allowed("cart.use", { ownerId: cart.ownerId }))) {
          return yield* new CartNotFound({ cartId })
        }
        return cart
      })

      const get = Effect.fn("Carts.get")(
        function* (cartId: Ids.CartId) {
          return yield* owned(cartId, yield* store.find(cartId))
        },
        orAway,
        provided
      )

      /**
       * Changes a cart that was just looked at. Usually nobody else has changed it since; else it is locked and looked at
       * again. What changes nothing makes no new version: a request that is repeated makes no other cart for a checkout.
       */
      const changing = Effect.fnUntraced(function* <E>(
        seen: Cart,
        decide: (items: ReadonlyArray<Item>) => Result.Result<ReadonlyArray<Item>, E>
      ) {
        const decided = Effect.fnUntraced(function* (cart: Cart) {
          const items = yield* Effect.fromResult(decide(cart.items))
          return isSame(cart.items, items) ? undefined : changed(cart, items, yield* stamp)
        })
        const change = yield* decided(seen)
        if (change === undefined) return seen
        if (yield* store.write(change)) return change.cart
        return yield* transaction(
          Effect.gen(function* () {
            const cart = (yield* store.lock([seen.cartId])).get(seen.cartId) ?? seen
            const again = yield* decided(cart)
            if (again === undefined) return cart
            yield* store.writeLocked([again])
            return again.cart
          })
        )
      })

      const setItem = Effect.fn("Carts.setItem")(
        function* ({ cartId, productId, qty }: Item & { readonly cartId: Ids.CartId }) {
          const cart = yield* owned(cartId, yield* store.find(cartId))
          const prices = yield* catalogue.PricesOf({ productIds: [productId] })
          if (prices.length === 0) return yield* new ProductNotFound({ productIds: [productId] })
          return yield* changing(cart, (items) => {
            const present = items.some((item) => item.productId === productId)
            if (!present && items.length >= maxLines) return Result.fail(new CartFull())
            return Result.succeed(
              present
                ? items.map((item) => (item.productId === productId ? { productId, qty } : item))
                : [...items, { productId, qty }]
            )
          })
        },
        orAway,
        provided
      )

      const removeItem = Effect.fn("Carts.removeItem")(
        function* ({ cartId, productId }: { readonly cartId: Ids.CartId; readonly productId: Ids.ProductId }) {
          const cart = yield* owned(cartId, yield* store.find(cartId))
          return yield* changing(cart, (items) => Result.succeed(items.filter((item) => item.productId !== productId)))
        },
        orAway,
        provided
      )

      const mergeCart = Effect.fn("Carts.merge")(
        function* ({ cartId, guestToken }: { readonly cartId: Ids.CartId; readonly guestToken: string }) {
          const guest = yield* tokens.verify(guestToken).pipe(Effect.mapError(() => new InvalidGuestToken()))
          if (guest.role !== "guest") return yield* new InvalidGuestToken()
          return yield* transaction(
            Effect.gen(function* () {
              const guestCarts = yield* store.idsOf(guest.userId)
              const carts = yield* store.lock([cartId, ...guestCarts])
              const into = yield* owned(cartId, carts.get(cartId))
              const emptied = guestCarts.flatMap((guestCart) => {
                const cart = carts.get(guestCart)
                return cart === undefined || cart.cartId === cartId || cart.items.length === 0 ? [] : [cart]
              })
              if (emptied.length === 0) return into
              const items = emptied.reduce((items, cart) => merge(items, cart.items), into.items)
              const at = yield* stamp
              const merged = changed(into, items, at)
              yield* store.writeLocked([...emptied.map((cart) => changed(cart, [], at)), merged])
              return merged.cart
            })
          )
        },
        orAway,
        provided
      )

      const takeOrdered = Effect.fn("Carts.takeOrdered")(
        function* (ordered: ReadonlyArray<Ordered>) {
          // Orders of the same cart, one after the other.
          const rounds: Array<Map<string, Ordered>> = []
          for (const order of ordered) {
            const free = rounds.find((round) => !round.has(order.cartId))
            if (free === undefined) rounds.push(new Map([[order.cartId, order]]))
            else free.set(order.cartId, order)
          }
          yield* transaction(
            Effect.forEach(
              rounds,
              Effect.fnUntraced(function* (round) {
                const carts = yield* store.lock([...round.keys()])
                yield* store.writeLocked(
                  [...carts.values()].flatMap((cart) => {
                    const order = round.get(cart.cartId)
                    return order === undefined ? [] : [changed(cart, without(cart.items, order.items), order.stamp)]
                  })
                )
              }),
              { discard: true }
            )
          )
        },
        orAway,
        provided
      )

      return Carts.of({ takeOrdered, create, get, setItem, removeItem, merge: mergeCart })
    })
  )
}

const changed = (cart: Cart, items: ReadonlyArray<Item>, stamp: Stamp): CartStore.Change => ({
  cart: new Cart({ ...cart, items, version: cart.version + 1 }),
  before: cart.items,
  stamp
})

const isSame = (before: ReadonlyArray<Item>, after: ReadonlyArray<Item>): boolean =>
  before.length === after.length &&
  before.every(({ productId, qty }, index) => after[index]?.productId === productId && after[index]?.qty === qty)
