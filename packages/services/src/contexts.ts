import { Analytics } from "./analytics/index.ts"
import { Cart } from "./cart/index.ts"
import { Catalogue } from "./catalogue/index.ts"
import { Identity } from "./identity/index.ts"
import { Inventory } from "./inventory/index.ts"
import { Notifications } from "./notifications/index.ts"
import { Orders } from "./orders/index.ts"
import { Partners } from "./partners/index.ts"
import { Payments } from "./payments/index.ts"
import { Pricing } from "./pricing/index.ts"
import { Risk } from "./risk/index.ts"

/** Every context of the shop. A deployment is a list of these. */
export const contexts = {
  identity: Identity,
  catalogue: Catalogue,
  pricing: Pricing,
  cart: Cart,
  inventory: Inventory,
  orders: Orders,
  payments: Payments,
  risk: Risk,
  notifications: Notifications,
  partners: Partners,
  analytics: Analytics
} as const

export type ContextName = keyof typeof contexts

export const contextNames = Object.keys(contexts).filter((name): name is ContextName => name in contexts)
