import { Schema } from "effect"
import { ProductUpdated } from "../catalogue/CatalogueEvents.ts"
import { StockAdjusted } from "../inventory/InventoryEvents.ts"
import {
  OrderCanceled,
  OrderCreated,
  OrderFulfilled,
  OrderHeld,
  OrderPaid,
  OrderReleased
} from "../orders/OrderEvents.ts"
import { UserId } from "../kernel/Ids.ts"
import { FlashSaleCanceled, FlashSaleEnded, FlashSaleScheduled, FlashSaleStarted } from "../pricing/PricingEvents.ts"

/** What becomes of orders; each names the order's owner in its payload. */
const ofOrders = [OrderCreated, OrderPaid, OrderCanceled, OrderFulfilled, OrderHeld, OrderReleased] as const

/** What anybody can see in the shop anyway. */
const ofTheShop = [
  StockAdjusted,
  ProductUpdated,
  FlashSaleScheduled,
  FlashSaleStarted,
  FlashSaleEnded,
  FlashSaleCanceled
] as const

/** The events that partners can be told of. All others are the shop's own. */
export const publicEvents = [...ofOrders, ...ofTheShop] as const

/** The type of an event that partners can be told of. */
export const PublicEventType = Schema.Literals(publicEvents.map(({ type }) => type))

const OfOrder = Schema.Struct({ userId: UserId })
const isOfOrder = Schema.is(OfOrder)
const orderTypes: ReadonlySet<string> = new Set(ofOrders.map(({ type }) => type))

/** Whom an event is about; null when it is about nobody. One about somebody is for them and for the shop's administrators. */
export const ownerOf = (eventType: string, payload: unknown): UserId | null => {
  if (!orderTypes.has(eventType)) return null
  // Whose order it is has to be known, or else it is told to nobody but administrators.
  return isOfOrder(payload) ? payload.userId : nobody
}

const nobody = UserId.make("nobody")
