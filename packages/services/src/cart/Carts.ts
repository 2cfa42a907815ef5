import { Clock, Context, Effect, Layer } from "effect"
import { Cart, CartFull, CartNotFound, InvalidGuestToken, merge, without } from "@merkato/domain/cart/Cart"
import { CartUpdated } from "@merkato/domain/cart/CartEvents"
import { ProductNotFound } from "@merkato/domain/catalogue/Product"
import * as Ids from "@merkato/domain/kernel/Ids"
import type { Forbidden, ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { regionCurrency } from "@merkato/domain/kernel/Region"
import { Principal, RequestContext } from "@merkato/domain/kernel/RequestContext"
import { type Item, maxLines } from "@merkato/domain/pricing/Quote"
import { guestTokenSeconds, Tokens } from "@merkato/infra/auth/Tokens"
import { allowed, authorize } from "@merkato/infra/authorizer/Authorizer"
import * as Provided from "@merkato/infra/context/Provided"
import { EventStore } from "@merkato/infra/events/EventStore"
import { orUnavailable, transaction } from "@merkato/infra/postgres/Database"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import * as CartStore from "./CartStore.ts"

const updated = (cart: Cart) =>
  CartUpdated.of(cart.cartId, cart.version, { cartId: cart.cartId, userId: cart.ownerId, items: cart.items })

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
    /** Takes out what was ordered; what came in since stays. */
    takeOrdered(cartId: Ids.CartId, ordered: ReadonlyArray<Item>): Effect.Effect<void, ServiceUnavailable>
  }
>()("merkato/cart/Carts") {
  static readonly layer = Layer.effect(
    Carts,
    Effect.gen(function* () {
      const store = yield* CartStore.make
      const events = yield* EventStore
      const tokens = yield* Tokens
      const catalogue = yield* CatalogueRpc
      const provided = yield* Provided.provided
      const orAway = orUnavailable("cart")
      const now = Effect.map(Clock.currentTimeMillis, (millis) => new Date(millis))

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
        const at = yield* now
        yield* transaction(Effect.andThen(store.insert(cart, at), events.append([updated(cart)], at)))
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

      const put = Effect.fnUntraced(function* (cart: Cart, items: ReadonlyArray<Item>) {
        const after = new Cart({ ...cart, items, version: cart.version + 1 })
        const at = yield* now
        yield* store.save(after, at)
        yield* events.append([updated(after)], at)
        return after
      })

      /** What changes nothing makes no new version: a request that is repeated makes no other cart for a checkout. */
      const changing = <E>(cartId: Ids.CartId, items: (cart: Cart) => Effect.Effect<ReadonlyArray<Item>, E>) =>
        transaction(
          Effect.gen(function* () {
            const cart = yield* owned(cartId, yield* store.lock(cartId))
            const after = yield* items(cart)
            return isSame(cart.items, after) ? cart : yield* put(cart, after)
          })
        )

      const setItem = Effect.fn("Carts.setItem")(
        function* ({ cartId, productId, qty }: Item & { readonly cartId: Ids.CartId }) {
          yield* owned(cartId, yield* store.find(cartId))
          const prices = yield* catalogue.PricesOf({ productIds: [productId] })
          if (prices.length === 0) return yield* new ProductNotFound({ productIds: [productId] })
          return yield* changing(cartId, ({ items }) => {
            const present = items.some((item) => item.productId === productId)
            if (!present && items.length >= maxLines) return Effect.fail(new CartFull())
            return Effect.succeed(
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
        ({ cartId, productId }: { readonly cartId: Ids.CartId; readonly productId: Ids.ProductId }) =>
          changing(cartId, ({ items }) => Effect.succeed(items.filter((item) => item.productId !== productId))),
        orAway,
        provided
      )

      const mergeCart = Effect.fn("Carts.merge")(
        function* ({ cartId, guestToken }: { readonly cartId: Ids.CartId; readonly guestToken: string }) {
          const guest = yield* tokens.verify(guestToken).pipe(Effect.mapError(() => new InvalidGuestToken()))
          if (guest.role !== "guest") return yield* new InvalidGuestToken()
          return yield* transaction(
            Effect.gen(function* () {
              const into = yield* owned(cartId, yield* store.lock(cartId))
              const guestCarts = yield* store.lockOfOwner(guest.userId)
              let items: ReadonlyArray<Item> = into.items
              for (const cart of guestCarts) {
                if (cart.cartId === into.cartId || cart.items.length === 0) continue
                items = merge(items, cart.items)
                yield* put(cart, [])
              }
              return items === into.items ? into : yield* put(into, items)
            })
          )
        },
        orAway,
        provided
      )

      const takeOrdered = Effect.fn("Carts.takeOrdered")(
        function* (cartId: Ids.CartId, ordered: ReadonlyArray<Item>) {
          yield* transaction(
            Effect.gen(function* () {
              const cart = yield* store.lock(cartId)
              if (cart !== undefined) yield* put(cart, without(cart.items, ordered))
            })
          )
        },
        orAway,
        provided
      )

      return Carts.of({ takeOrdered, create, get, setItem, removeItem, merge: mergeCart })
    })
  )
}

const isSame = (before: ReadonlyArray<Item>, after: ReadonlyArray<Item>): boolean =>
  before.length === after.length &&
  before.every(({ productId, qty }, index) => after[index]?.productId === productId && after[index]?.qty === qty)
