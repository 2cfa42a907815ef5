/** What an order process can come to, and what of it is kept under the key of its request. */
import { Schema } from "effect"
import { Order } from "@merkato/domain/orders/Order"
import { answerOf } from "@merkato/infra/idempotency/Idempotency"
import { CheckoutRefusal, PayRefusal } from "@merkato/rpc/orders/OrdersRpc"
import * as SagaStore from "./SagaStore.ts"

export const Refusal = Schema.Union([...PayRefusal.members, ...CheckoutRefusal.members])
export type Refusal = typeof Refusal.Type
export type PayRefusal = typeof PayRefusal.Type
export type CheckoutRefusal = typeof CheckoutRefusal.Type
export const isPayRefusal = Schema.is(PayRefusal)
export const isRefusal = Schema.is(Refusal)
export const isReplayed = Schema.is(Schema.TaggedStruct("Replayed", { refusal: Schema.toType(Refusal) }))
export const isCheckoutRefusal = Schema.is(CheckoutRefusal)

export const Answer = answerOf(Order, Refusal)
export type Answer = typeof Answer.Type
export const encodeAnswer = Schema.encodeSync(Schema.toCodecJson(Answer))
export const decodeAnswer = Schema.decodeUnknownEffect(Schema.toCodecJson(Answer))

/** What a process can come to. `Open`: it is not known yet whether money was taken; the process goes on by itself. */
export type Outcome =
  | { readonly _tag: "Done"; readonly order: Order }
  | { readonly _tag: "Refused"; readonly refusal: Refusal }
  /** No gateway took the money; the order can be paid later. */
  | { readonly _tag: "Unavailable"; readonly retryAfterSeconds: number }
  /** It came to nothing and left nothing behind; the same key may be tried again. */
  | { readonly _tag: "GivenUp" }
  /** Another checkout of the same cart is under way; the same key may be tried again. */
  | { readonly _tag: "CartTaken" }
  | { readonly _tag: "Open" }

/** Seconds a shopper waits before asking again about a payment that is not settled. */
export const retryAfterSeconds = 5

/** A process that runs here, with its order as this owner knows it. */
export interface Running extends SagaStore.Saga {
  readonly order?: Order
}

/** The order is to be read again. */
export const without = ({ order: _, ...saga }: Running): Running => saga

/** Why somebody has to look at an order first. */
export type Review = NonNullable<SagaStore.Work["review"]>

/** What follows a step: another one, or the end. */
export type Turn = Outcome | { readonly _tag: "Moving"; readonly saga: Running }
export const moving = (saga: Running): Turn => ({ _tag: "Moving", saga })
export const open: Outcome = { _tag: "Open" }
export const givenUp: Outcome = { _tag: "GivenUp" }
export const cartTaken: Outcome = { _tag: "CartTaken" }

/** What of an ending is kept under the request's key: what was done, and refusals of the domain. */
export const keptOf = (end: Outcome): Answer | undefined => {
  switch (end._tag) {
    case "Done":
      return { _tag: "Done", value: end.order }
    case "Refused":
      return { _tag: "Refused", refusal: end.refusal }
    default:
      return undefined
  }
}
