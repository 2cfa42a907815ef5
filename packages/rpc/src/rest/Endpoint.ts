/** What endpoints of several groups have in common. */
import { Schema, SchemaTransformation } from "effect"
import { HttpApiSchema, OpenApi } from "effect/http-api"
import { Currency } from "@merkato/domain/kernel/Money"

export const summary = (text: string) => OpenApi.annotations({ summary: text })

export const created = HttpApiSchema.status(201)
export const accepted = HttpApiSchema.status(202)

const Limit = Schema.String.check(
  Schema.isPattern(/^(?:[1-9][0-9]?|100)$/u, { expected: "a whole number from 1 to 100" })
).pipe(Schema.decodeTo(Schema.Int, SchemaTransformation.numberFromString))

/** The query of a list that is told in pages: how many, and after which. */
export const paging = {
  limit: Schema.optionalKey(Limit),
  cursor: Schema.optionalKey(Schema.String.check(Schema.isMaxCodePoints(512)))
}

/** The header of what is done once, however often it is asked for. */
export const idempotent = { "idempotency-key": Schema.optionalKey(Schema.String) }

/** A price in a body: a decimal amount of the currency beside it. */
export const priceFields = { price: Schema.Finite, currency: Currency }
