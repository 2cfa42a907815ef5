import { Schema } from "effect"
import { OrderId } from "@merkato/domain/kernel/Ids"
import { OrderStatus } from "@merkato/domain/orders/Order"

/** Where orders are watched, over a WebSocket. */
export const path = "/ws/orders"

/** The first frame of a client, and any later one with a newer token of the same person. */
export const AuthFrame = Schema.Struct({
  auth: Schema.String.annotate({ description: "An access token. When it expires without a newer one, the socket ends" })
})

/** A client wants to hear of an order, or of all its own. */
export const SubscribeFrame = Schema.Struct({
  subscribe: Schema.Union([
    Schema.Literal("mine"),
    Schema.Struct({
      orderId: OrderId,
      after: Schema.optionalKey(
        Schema.Int.check(Schema.isGreaterThanOrEqualTo(0)).annotate({
          description: "The last version the client has seen: every change of status since then is sent first"
        })
      )
    })
  ]).annotate({
    description:
      'Of one order: where it stands comes at once, unless `after` is given. Of "mine": where the 20 newest stand comes at once'
  })
})

export const ClientFrame = Schema.Union([AuthFrame, SubscribeFrame])

/**
 * Where an order stands. Versions of an order only grow on a socket; not every version is a change of status, so there are
 * gaps. A client that reconnects may be told again what it knows, never less.
 */
export const OrderFrame = Schema.Struct({
  orderId: OrderId,
  status: OrderStatus,
  version: Schema.Int,
  occurredAt: Schema.String.annotate({ description: "RFC 3339, UTC" })
})

/** What went wrong, as the problem that REST would answer (RFC 9457). */
export const ErrorFrame = Schema.Struct({
  error: Schema.Struct({
    code: Schema.String,
    title: Schema.String,
    status: Schema.Int,
    detail: Schema.String,
    traceId: Schema.String
  })
})

/** Why the server ends a socket: the close code, and its reason. 1001 says that the server stops: come back at once. */
export const closings = {
  unauthenticated: { code: 4401, reason: "unauthenticated" },
  tokenExpired: { code: 4401, reason: "token_expired" },
  otherPerson: { code: 4403, reason: "forbidden" },
  authTimeout: { code: 4408, reason: "auth_timeout" },
  slowReader: { code: 4429, reason: "slow_reader" },
  notText: { code: 1003, reason: "text_frames_only" },
  frameTooLarge: { code: 1009, reason: "frame_too_large" }
} as const
export type Closing = (typeof closings)[keyof typeof closings]

/** Bounds of one socket. */
export const limits = {
  /** Characters of a client's frame: a token is much shorter. */
  frameCharacters: 8_192,
  /** Orders that are watched one by one; "mine" counts as one. */
  subscriptions: 50,
  /** Frames that wait for a client to read them. */
  waitingFrames: 256,
  /** Orders that are sent at once for "mine". */
  newestOrders: 20,
  authWithinMs: 10_000
} as const
