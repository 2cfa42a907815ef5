import type { Order } from "@merkato/domain/orders/Order"
import type { Product } from "@merkato/domain/catalogue/Product"
import type * as Ids from "@merkato/domain/kernel/Ids"
import type { RefundStatus } from "@merkato/domain/payments/Payment"
import type { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import type { PricingRpc } from "@merkato/rpc/pricing/PricingRpc"

/** What somebody outside was told, and may rely on from then on. */
export type Acknowledgement =
  | { readonly _tag: "Placed"; readonly key: string; readonly userId: string; readonly order: Order }
  | { readonly _tag: "Paid"; readonly orderId: string }
  | { readonly _tag: "Canceled"; readonly orderId: string }
  | { readonly _tag: "Fulfilled"; readonly orderId: string }
  | { readonly _tag: "Adjusted"; readonly reason: string; readonly delta: number }
  | { readonly _tag: "Refund"; readonly refund: AskedRefund; readonly status: RefundStatus }

/** An order as its shopper knows it, with what was tried to pay for it. */
export interface KnownOrder {
  readonly orderId: string
  readonly userId: string
}

export type PlaceRequest = Parameters<typeof OrdersRpc.Service.Place>[0]
export type PayRequest = Parameters<typeof OrdersRpc.Service.Pay>[0]
export type CheckoutRequest = Parameters<typeof OrdersRpc.Service.Checkout>[0]

/** A flash sale that is asked for; always under a key. */
export interface SaleRequest extends Readonly<Parameters<typeof PricingRpc.Service.ScheduleFlashSale>[0]> {
  readonly idempotencyKey: Ids.IdempotencyKey
}

/** A request under a key, to be asked again. */
export type Asked = {
  readonly key: string
  readonly userId: string
} & (
  | { readonly repeat: "place"; readonly request: PlaceRequest }
  | { readonly repeat: "pay"; readonly request: PayRequest }
  | { readonly repeat: "checkout"; readonly request: CheckoutRequest }
  | { readonly repeat: "sale"; readonly request: SaleRequest }
)

/** A request whose answer came, in a form that can be compared: it must come again for the same key. */
export type Answered = Asked & { readonly answer: string }

/** Money that an admin wants to be given back, and of how much. */
export interface AskedRefund {
  readonly refundId: string
  readonly attemptId: string
  readonly amountMinor: number
  /** What the whole payment was. */
  readonly paidMinor: number
}

/** A flash sale that an admin was told there is; times in milliseconds of virtual time. */
export interface KnownSale {
  readonly saleId: string
  readonly productId: string
  readonly priceMinor: number
  readonly startsAt: number
  readonly endsAt: number
  readonly answeredAt: number
}

/** A flash sale that an admin was refused, because of another one of the product. */
export interface OverlappingSale {
  readonly productId: string
  readonly startsAt: number
  readonly endsAt: number
  readonly askedAt: number
  readonly otherId: string
}

/** Somebody wanted a flash sale to be canceled. */
export interface AskedCancel {
  readonly saleId: string
  readonly askedAt: number
  /** When it was acknowledged; undefined when nobody heard of it. */
  answeredAt: number | undefined
}

/** What an order costs, as its shopper was told. */
export interface ToldPrices {
  readonly order: Pick<Order, "orderId" | "items">
  /** When the request was made for the first time, and when this was its answer. */
  readonly askedAt: number
  readonly answeredAt: number
}

/** What those outside of the shop remember. */
export class Memory {
  readonly products: Array<Product> = []
  /** What there are only a few units of, ever; several want them at once. */
  scarce: Product | undefined = undefined
  readonly orders: Array<KnownOrder> = []
  readonly answered: Array<Answered> = []
  /** Requests that somebody gave up on before there was an answer. */
  readonly unanswered: Array<Asked> = []
  readonly refunds: Array<AskedRefund> = []
  /** Orders that were answered as held for review. */
  readonly held: Array<string> = []
  readonly carts = new Map<string, string>()
  readonly sales: Array<KnownSale> = []
  readonly overlappingSales: Array<OverlappingSale> = []
  readonly saleCancels: Array<AskedCancel> = []
  readonly prices: Array<ToldPrices> = []
  /** When each command began, by its number. */
  readonly begun = new Map<number, number>()
  /** When somebody asked for something under a key, for the first time. */
  private readonly asked = new Map<string, number>()
  readonly acknowledged: Array<Acknowledgement> = []
  /** Answers that nobody should have got. */
  readonly complaints: Array<string> = []
  /** How often each kind of answer came. */
  readonly answers = new Map<string, number>()

  /** Somebody asks for something under a key; when they first did. */
  ask(userId: string, key: string, now: number): number {
    const first = this.firstAsked(userId, key) ?? now
    this.asked.set(`${userId} ${key}`, first)
    return first
  }

  firstAsked(userId: string, key: string): number | undefined {
    return this.asked.get(`${userId} ${key}`)
  }

  /** Compares an answer with the first one under its key; does something when it is that. */
  compare(userId: string, key: string, answer: string, first: () => void): void {
    const before = this.answered.find((each) => each.userId === userId && each.key === key)
    if (before === undefined) return first()
    if (before.answer !== answer) {
      this.complaints.push(`${userId} asked again with ${key} and got ${answer} instead of ${before.answer}`)
    }
  }

  note(acknowledgement: Acknowledgement): void {
    this.acknowledged.push(acknowledgement)
  }

  count(answer: string): void {
    this.answers.set(answer, (this.answers.get(answer) ?? 0) + 1)
  }

  /** Orders that somebody was told are paid. */
  get paid(): ReadonlyArray<string> {
    return this.acknowledged.flatMap((told) => (told._tag === "Paid" ? [told.orderId] : []))
  }

  of(userId: string): ReadonlyArray<KnownOrder> {
    return this.orders.filter((order) => order.userId === userId)
  }
}
