import { Cause, Clock, type Context, Data, DateTime, Deferred, Effect, Queue, Schema, type Scope } from "effect"
import { Socket } from "effect/socket"
import { type Order, type OrderHistoryEntry, OrderNotFound } from "@merkato/domain/orders/Order"
import { ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { RequestContext, type RequestContextShape } from "@merkato/domain/kernel/RequestContext"
import type { Tokens, Verified } from "@merkato/infra/auth/Tokens"
import type { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { ClientFrame, type Closing, closings, limits, type SubscribeFrame } from "@merkato/rpc/live/OrdersLive"
import { optionsOf, problemMembers, type ProblemOptions, type Tagged } from "../Problems.ts"
import * as LiveMetrics from "./LiveMetrics.ts"
import type { OrderChanges, OrderFrame } from "./OrderChanges.ts"

/** What one socket is served with. */
export interface Surroundings {
  readonly changes: OrderChanges
  readonly orders: Pick<typeof OrdersRpc.Service, "Get" | "History" | "List">
  readonly tokens: Pick<typeof Tokens.Service, "verifyUntil">
  /** Questions to the orders context that this process has under way at a time, for all sockets. */
  readonly asking: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/** The server ends the socket, with a last word where the client may still read it. */
class Ended extends Data.TaggedError("Ended")<{
  readonly closing: Closing
  readonly lastWord?: ProblemOptions | undefined
}> {}

const decodeFrame = Schema.decodeUnknownEffect(Schema.fromJsonString(ClientFrame))

/** How long the orders context may take to answer. */
const answerWithin = "10 seconds"

/** How long a last word may wait for the client to read it. */
const lastWordWithin = "1 second"

const unauthenticated = (detail: string): ProblemOptions => ({
  status: 401,
  code: "unauthenticated",
  title: "Unauthenticated",
  detail
})

const validationFailed: ProblemOptions = {
  status: 400,
  code: "validation_failed",
  title: "Validation failed",
  detail: 'Expected {"subscribe":"mine"}, {"subscribe":{"orderId":"…","after":0}} or {"auth":"…"}'
}

const tooManySubscriptions: ProblemOptions = {
  status: 429,
  code: "too_many_subscriptions",
  title: "Too many subscriptions",
  detail: `A socket watches at most ${limits.subscriptions} orders one by one; subscribe to "mine", or open another`
}

const frameOf = (order: Order): OrderFrame => ({
  orderId: order.orderId,
  status: order.status,
  version: order.version,
  occurredAt: DateTime.formatIso(order.updatedAt)
})

/** The changes of status after a version, oldest first. */
const changesAfter = (
  orderId: string,
  history: ReadonlyArray<Pick<OrderHistoryEntry, "version" | "status" | "occurredAt">>,
  after: number
): ReadonlyArray<OrderFrame> =>
  history
    .toSorted((one, other) => one.version - other.version)
    .filter((entry, nth, entries) => entry.version > after && entry.status !== entries[nth - 1]?.status)
    .map(({ occurredAt, status, version }) => ({
      orderId,
      status,
      version,
      occurredAt: DateTime.formatIso(occurredAt)
    }))

/** Orders whose last sent version a socket remembers; of others it may tell again what it has told. */
const remembered = 1_000

/** What a client has subscribed to, and what it has been sent. */
class Subscriptions {
  private readonly orders = new Set<string>()
  private mine = false
  private readonly lastSent = new Map<string, number>()

  /** False when there are too many. */
  add(subscribe: (typeof SubscribeFrame.Type)["subscribe"]): boolean {
    if (subscribe === "mine") this.mine = true
    else if (this.orders.size >= limits.subscriptions && !this.orders.has(subscribe.orderId)) return false
    else this.orders.add(subscribe.orderId)
    return true
  }
  remove(orderId: string) {
    this.orders.delete(orderId)
  }
  /** Whether a frame is news to the client; from then on it is not. */
  takes({ orderId, version }: OrderFrame): boolean {
    if (!this.mine && !this.orders.has(orderId)) return false
    if (version <= (this.lastSent.get(orderId) ?? 0)) return false
    this.knows(orderId, version)
    return true
  }
  /** The client has seen this version of an order. */
  knows(orderId: string, version: number) {
    this.lastSent.delete(orderId)
    this.lastSent.set(orderId, version)
    if (this.lastSent.size > remembered) {
      const [oldest] = this.lastSent.keys()
      if (oldest !== undefined) this.lastSent.delete(oldest)
    }
  }
}

const textOf = (chunk: string | Uint8Array) =>
  typeof chunk !== "string"
    ? Effect.fail(new Ended({ closing: closings.notText }))
    : chunk.length > limits.frameCharacters
      ? Effect.fail(new Ended({ closing: closings.frameTooLarge }))
      : Effect.succeed(chunk)

/** Serves a socket until the client goes away, its token expires or it breaks a rule; a server that stops closes it. */
export const serve = Effect.fnUntraced(function* (
  socket: Socket.Socket,
  { asking, changes, orders, tokens }: Surroundings
): Effect.fn.Return<void, never, Scope.Scope> {
  const { correlationId, traceParent } = yield* RequestContext
  const services: Context.Context<never> = yield* Effect.context<never>()
  const ended = yield* Deferred.make<never, Ended>()
  const waiting = yield* Queue.dropping<string>(limits.waitingFrames)
  const subscriptions = new Subscriptions()
  const writer = yield* socket.writer

  const send = (frame: object) => {
    if (Queue.offerUnsafe(waiting, JSON.stringify(frame))) return
    Deferred.doneUnsafe(ended, Effect.fail(new Ended({ closing: closings.slowReader })))
  }
  const sendError = (options: ProblemOptions) => send({ error: problemMembers(options, traceParent) })
  const tell = (frame: OrderFrame) => {
    if (subscriptions.takes(frame)) send(frame)
  }
  /** What changed while a subscription was caught up: told after that, so that no older change seems to be one already told. */
  let held: Array<OrderFrame> | undefined
  const hear = (frame: OrderFrame) => {
    if (held === undefined) tell(frame)
    else if (held.length < limits.waitingFrames) held.push(frame)
    else Deferred.doneUnsafe(ended, Effect.fail(new Ended({ closing: closings.slowReader })))
  }
  const tellHeld = Effect.sync(() => {
    const frames = held ?? []
    held = undefined
    frames.forEach(tell)
  })

  const authenticate = (token: string) =>
    Effect.catchTag(tokens.verifyUntil(token), "Unauthenticated", ({ reason }) =>
      Effect.fail(new Ended({ closing: closings.unauthenticated, lastWord: unauthenticated(reason) }))
    )
  const decode = (chunk: string | Uint8Array) =>
    Effect.flatMap(textOf(chunk), (text) => Effect.catchTag(decodeFrame(text), "SchemaError", () => Effect.undefined))

  const greeting = Effect.fnUntraced(function* (chunk: string | Uint8Array) {
    const frame = yield* decode(chunk)
    if (frame === undefined || !("auth" in frame)) {
      return yield* new Ended({
        closing: closings.unauthenticated,
        lastWord: unauthenticated('The first frame is {"auth":"<access token>"}')
      })
    }
    return yield* authenticate(frame.auth)
  })

  /** What has to be sent for a subscription before anything that changes later. Nobody hears of the orders of others. */
  const catchUp = Effect.fnUntraced(function* (
    subscribe: (typeof SubscribeFrame.Type)["subscribe"],
    { userId }: RequestContextShape["principal"]
  ) {
    if (subscribe === "mine") {
      const { items } = yield* orders.List({ limit: limits.newestOrders })
      for (const order of items.toReversed()) if (order.userId === userId) tell(frameOf(order))
      return
    }
    const { after, orderId } = subscribe
    const order = yield* orders.Get({ orderId })
    if (order.userId !== userId) return yield* new OrderNotFound({ orderId })
    if (after === undefined) return tell(frameOf(order))
    subscriptions.knows(orderId, after)
    if (order.version > after) changesAfter(orderId, yield* orders.History({ orderId }), after).forEach(tell)
  })

  const refuse = (subscribe: (typeof SubscribeFrame.Type)["subscribe"], error: Tagged) =>
    Effect.sync(() => {
      if (subscribe !== "mine") subscriptions.remove(subscribe.orderId)
      sendError(optionsOf(error))
    })
  const subscribing = (
    subscribe: (typeof SubscribeFrame.Type)["subscribe"],
    principal: RequestContextShape["principal"]
  ) =>
    Effect.suspend(() => {
      if (!subscriptions.add(subscribe)) return Effect.sync(() => sendError(tooManySubscriptions))
      held = []
      return asking(catchUp(subscribe, principal)).pipe(
        Effect.timeoutOrElse({
          duration: answerWithin,
          orElse: () => Effect.fail(new ServiceUnavailable({ service: "orders", retryAfterSeconds: 1 }))
        }),
        Effect.provideService(RequestContext, { principal, correlationId, traceParent }),
        Effect.catch((error) => refuse(subscribe, error)),
        Effect.catchCause((cause) =>
          Cause.hasInterruptsOnly(cause)
            ? Effect.interrupt
            : Effect.andThen(
                Effect.logError("A subscription failed in a way that nobody foresaw", cause),
                refuse(subscribe, new ServiceUnavailable({ service: "orders", retryAfterSeconds: 1 }))
              )
        ),
        Effect.andThen(tellHeld)
      )
    })

  const session = Effect.gen(function* () {
    const { pull } = yield* socket.reader
    const [first, ...rest] = yield* Effect.timeoutOrElse(pull, {
      duration: limits.authWithinMs,
      orElse: () =>
        Effect.fail(
          new Ended({ closing: closings.authTimeout, lastWord: unauthenticated("No token came within 10 seconds") })
        )
    })
    let verified: Verified = yield* greeting(first)
    yield* changes.watch(verified.principal.userId, hear)

    const take = Effect.fnUntraced(function* (chunk: string | Uint8Array) {
      const frame = yield* decode(chunk)
      if (frame === undefined) return sendError(validationFailed)
      if ("subscribe" in frame) return yield* subscribing(frame.subscribe, verified.principal)
      const newer = yield* authenticate(frame.auth)
      if (newer.principal.userId !== verified.principal.userId) {
        return yield* new Ended({
          closing: closings.otherPerson,
          lastWord: { status: 403, code: "forbidden", title: "Forbidden", detail: "This is another person's token" }
        })
      }
      verified = newer
    })
    const reading = Effect.andThen(
      Effect.forEach(rest, take, { discard: true }),
      Effect.forever(Effect.flatMap(pull, (chunks) => Effect.forEach(chunks, take, { discard: true })))
    )
    const writing = Effect.forever(
      Effect.flatMap(Queue.takeAll(waiting), (frames) =>
        Effect.map(writer.writeAll(frames), () => LiveMetrics.sent("ws_orders", frames.length, services))
      )
    )
    const expiring = Effect.gen(function* () {
      for (;;) {
        const leftMs = verified.expiresAt - (yield* Clock.currentTimeMillis)
        if (leftMs <= 0) {
          return yield* new Ended({
            closing: closings.tokenExpired,
            lastWord: unauthenticated("The token has expired")
          })
        }
        // A timer cannot wait longer than 2^31 ms.
        yield* Effect.sleep(Math.min(leftMs, 86_400_000))
      }
    })
    return yield* Effect.raceAllFirst([reading, writing, expiring, Deferred.await(ended)])
  })

  yield* LiveMetrics.connected("ws_orders")
  yield* session.pipe(
    Effect.catchTag("Ended", ({ closing, lastWord }) =>
      Effect.gen(function* () {
        yield* LiveMetrics.dropped("ws_orders", closing.reason)
        if (lastWord !== undefined) {
          const frame = JSON.stringify({ error: problemMembers(lastWord, traceParent) })
          yield* Effect.timeoutOption(writer.write(frame), lastWordWithin)
        }
        yield* writer.write(new Socket.CloseEvent(closing.code, closing.reason))
      })
    ),
    // The client has gone away.
    Effect.catchTag("SocketError", () => Effect.void),
    Effect.withTracerEnabled(false)
  )
})
