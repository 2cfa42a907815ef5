import { Schema } from "effect"
import * as Event from "../kernel/Event.ts"
import { ProductId } from "../kernel/Ids.ts"
import { Currency } from "../kernel/Money.ts"
import { Sku } from "./Product.ts"

/** A product as it is after the change; `price` is a decimal amount of `currency`. */
const ProductState = Schema.Struct({
  productId: ProductId,
  sku: Sku,
  name: Schema.String,
  description: Schema.String,
  category: Schema.String,
  price: Schema.Finite,
  currency: Currency,
  version: Schema.Int
})

/** A product was added or changed: name, description, category or price. */
export const ProductUpdated = Event.define("ecommerce.product.product.updated.v1", "catalogue.events", ProductState)

export const events = [ProductUpdated] as const
