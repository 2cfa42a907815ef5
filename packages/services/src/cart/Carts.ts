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
import * as VersionedCache from "@merkato/infra/cache/VersionedCache"
import { orUnavailable, transaction } from "@merkato/infra/postgres/Database"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import * as CartStore from "./CartStore.ts"

/** What was ordered from a cart, and whose event tells of it. */
export interface Ordered {
  readonly cartId: Ids.CartId
  readonly items: ReadonlyArray<Item>
  readonly stamp: Stamp
}

/** A cart that a command is about: as it is now, or as this process saw it last. */
interface Recalled {
  readonly cart: Cart
  readonly isNow: boolean
}

/** How long what was seen of carts and products is remembered. */
const rememberedMs = 60_000

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
    /** Keeps others from changing carts until the caller's transaction ends. */
    lock(cartIds: ReadonlyArray<Ids.CartId>): Effect.Effect<void, ServiceUnavailable>
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
      const carts = yield* VersionedCache.make<Cart>({ name: "cart", capacity: 4_096, ttlMs: rememberedMs })
      /** Products that there are; a product never goes. */
      const products = yield* VersionedCache.make<true>({
        name: "cart_product",
        capacity: 20_000,
        ttlMs: rememberedMs
      })
      const remember = (cart: Cart) => Effect.as(carts.put(cart.cartId, cart.version, cart), cart)

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
          ordersTaken: 0,
          version: 1
        })
        const made = yield* store.write({ cart, before: [], stamp: yield* stamp })
        if (!made) return yield* Effect.die(new Error(`There is a cart ${cart.cartId} already`))
        yield* remember(cart)
        if (!stranger) return { cart }
        const guest = new Principal({ userId: ownerId, role: "guest", region: principal.region })
        return { cart, guestToken: yield* tokens.issue(guest, guestTokenSeconds) }
      }).pipe(orAway, provided, Tracing.withSpan("Carts.create"))

      /** The cart, if it is the caller's; else it does not exist for them. */
      const owned = Effect.fnUntraced(function* (cartId: Ids.CartId, cart: Cart | undefined) {
        if (cart === undefined || !(yield* allowed("cart.use", { ownerId: cart.ownerId }))) {
          return yield* new CartNotFound({ cartId })
        }
        return cart
      })

      const look = Effect.fnUntraced(function* (cartId: Ids.CartId) {
        return yield* remember(yield* owned(cartId, yield* store.find(cartId)))
      })

      const get = (cartId: Ids.CartId) => look(cartId).pipe(orAway, provided, Tracing.withSpan("Carts.get"))

      const recall = Effect.fnUntraced(function* (cartId: Ids.CartId) {
        const cart = yield* carts.get(cartId)
        if (cart === undefined) return { cart: yield* look(cartId), isNow: true } satisfies Recalled
        return { cart: yield* owned(cartId, cart), isNow: false } satisfies Recalled
      })

      /**
       * Changes a cart. One that is remembered is good enough to write its next version, which is refused when somebody
       * else has written that; for every other answer the cart is looked at. Who loses a race then locks it. What changes
       * nothing makes no new version.
       */
      const changing = Effect.fnUntraced(function* <E>(
        { cart, isNow }: Recalled,
        decide: (items: ReadonlyArray<Item>) => Result.Result<ReadonlyArray<Item>, E>
      ) {
        const { cartId } = cart
        const decided = Effect.fnUntraced(function* (cart: Cart) {
          const items = yield* Effect.fromResult(decide(cart.items))
          return isSame(cart.items, items) ? undefined : changed(cart, items, yield* stamp)
        })
        const early = isNow ? undefined : yield* Effect.orElseSucceed(decided(cart), () => undefined)
        if (early !== undefined && (yield* store.write(early))) return yield* remember(early.cart)
        const before = isNow ? cart : yield* look(cartId)
        const change = yield* decided(before)
        if (change === undefined) return before
        if (yield* store.write(change)) return yield* remember(change.cart)
        return yield* transaction(
          Effect.gen(function* () {
            const locked = (yield* store.lock([cartId])).get(cartId) ?? before
            const again = yield* decided(locked)
            if (again === undefined) return locked
            yield* store.writeLocked([again])
            return again.cart
          })
        ).pipe(Effect.flatMap(remember))
      })

      const isSold = Effect.fnUntraced(function* (productId: Ids.ProductId) {
        if ((yield* products.get(productId)) === true) return true
        const prices = yield* catalogue.PricesOf({ productIds: [productId] })
        if (prices.length === 0) return false
        yield* products.put(productId, 1, true)
        return true
      })

      const setItem = Tracing.fn("Carts.setItem")(
        function* ({ cartId, productId, qty }: Item & { readonly cartId: Ids.CartId }) {
          const recalled = yield* recall(cartId)
          if (!(yield* isSold(productId))) return yield* new ProductNotFound({ productIds: [productId] })
          return yield* changing(recalled, (items) => {
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

      const removeItem = Tracing.fn("Carts.removeItem")(
        function* ({ cartId, productId }: { readonly cartId: Ids.CartId; readonly productId: Ids.ProductId }) {
          const recalled = yield* recall(cartId)
          return yield* changing(recalled, (items) =>
            Result.succeed(items.filter((item) => item.productId !== productId))
          )
        },
        orAway,
        provided
      )

      const mergeCart = Tracing.fn("Carts.merge")(
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

      const lock = (cartIds: ReadonlyArray<Ids.CartId>) => Effect.asVoid(store.lock(cartIds)).pipe(orAway)

      const takeOrdered = Tracing.fn("Carts.takeOrdered")(
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
                    return order === undefined ? [] : [taken(cart, order)]
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

      return Carts.of({ lock, takeOrdered, create, get, setItem, removeItem, merge: mergeCart })
    })
  )
}

const changed = (cart: Cart, items: ReadonlyArray<Item>, stamp: Stamp): CartStore.Change => ({
  cart: new Cart({ ...cart, items, version: cart.version + 1 }),
  before: cart.items,
  stamp
})

const taken = (cart: Cart, { items, stamp }: Ordered): CartStore.Change =>
  changed(new Cart({ ...cart, ordersTaken: cart.ordersTaken + 1 }), without(cart.items, items), stamp)

const isSame = (before: ReadonlyArray<Item>, after: ReadonlyArray<Item>): boolean =>
  before.length === after.length &&
  before.every(({ productId, qty }, index) => after[index]?.productId === productId && after[index]?.qty === qty)
