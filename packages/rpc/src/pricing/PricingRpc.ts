import { Schema } from "effect"
import { RpcGroup } from "effect/rpc"
import { ProductNotFound } from "@merkato/domain/catalogue/Product"
import { Currency } from "@merkato/domain/kernel/Money"
import { CurrencyNotSupported, Items, Quote } from "@merkato/domain/pricing/Quote"
import { Contract } from "../contract/Contract.ts"
import { query } from "../contract/Operation.ts"

export const PricingGroup = RpcGroup.make(
  query("Quote", {
    payload: { items: Items, currency: Schema.optionalKey(Currency) },
    success: Quote,
    errors: [ProductNotFound, CurrencyNotSupported]
  })
)

export class PricingRpc extends Contract<PricingRpc>()("pricing", PricingGroup) {}
