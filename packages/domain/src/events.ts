import { events as cart } from "./cart/CartEvents.ts"
import { events as catalogue } from "./catalogue/CatalogueEvents.ts"
import { events as identity } from "./identity/IdentityEvents.ts"
import { events as inventory } from "./inventory/InventoryEvents.ts"
import { events as orders } from "./orders/OrderEvents.ts"
import { events as partners } from "./partners/PartnerEvents.ts"
import { events as payments } from "./payments/PaymentEvents.ts"
import { events as pricing } from "./pricing/PricingEvents.ts"
import { events as risk } from "./risk/RiskEvents.ts"

/** Every kind of event of the shop, by context. */
export const allEvents = [
  ...identity,
  ...catalogue,
  ...pricing,
  ...cart,
  ...inventory,
  ...orders,
  ...payments,
  ...risk,
  ...partners
] as const
