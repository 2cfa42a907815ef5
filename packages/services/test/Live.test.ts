// One live connection by itself: what becomes of a client that does not read, and of changes that come while it is caught up.
import { expect, test } from "bun:test"
import { DateTime, Deferred, Effect, Fiber, Latch, Queue, Stream } from "effect"
import { Socket } from "effect/socket"
import { EventId, Id, OrderId, ProductId, ReservationId, UserId } from "@merkato/domain/kernel/Ids"
import type { Envelope } from "@merkato/domain/kernel/Event"
import { Principal } from "@merkato/domain/kernel/RequestContext"
import { Order, OrderHistoryEntry, type OrderStatus } from "@merkato/domain/orders/Order"
import { OrderFulfilled, OrderPaid, OrderPaymentStarted } from "@merkato/domain/orders/OrderEvents"
import { ServerStatus } from "@merkato/infra/http/BunHttpServer"
import * as FlashSalesLive from "@merkato/rpc/live/FlashSalesLive"
import * as OrdersLive from "@merkato/rpc/live/OrdersLive"
import * as OrderChanges from "@merkato/services/gateway/live/OrderChanges"
import * as OrderSocket from "@merkato/services/gateway/live/OrderSocket"
import * as SaleEvents from "@merkato/services/gateway/live/SaleEvents"
import * as SaleStream from "@merkato/services/gateway/live/SaleStream"

const at = DateTime.makeUnsafe("2026-01-31T08:00:00Z")
const orderId = OrderId.make("ORDER-1")
const userId = UserId.make("ADA")
const order = (version: number, status: OrderStatus) =>
  new Order({
    orderId,
    userId,
    region: "us",
    status,
    items: [{ productId: ProductId.make("P1"), qty: 1, priceMinor: 100 }],
    itemsMinor: 100,
    discountMinor: 0,
    taxMinor: 0,
    shippingMinor: 0,
    totalMinor: 100,
    currency: "USD",
    reservationId: ReservationId.make("RES-1"),
    paymentAttemptId: null,
    reservationLost: false,
    reviewed: false,
    version,
    createdAt: at,
    updatedAt: at
  })
const entry = (version: number, status: OrderStatus) =>
  new OrderHistoryEntry({ version, status, event: "", reason: null, occurredAt: at })

const envelope = (eventType: string, version: number, of: string = orderId): Envelope => ({
  eventId: EventId.make(`${of}-${version}`),
  eventType,
  occurredAt: "2026-01-31T08:00:00.000Z",
  producer: "order-service",
  traceId: "",
  correlationId: "",
  schemaVersion: "1.0",
  partitionKey: Id.make(of),
  region: "us",
  aggregateVersion: version,
  payload: { orderId: of, userId }
})

/** A client of a socket that reads only while it is let, and the orders context that it is told from. */
const client = Effect.fnUntraced(function* (answers: {
  readonly get: Effect.Effect<Order>
  readonly history?: Effect.Effect<ReadonlyArray<OrderHistoryEntry>>
}) {
  const changes = OrderChanges.make()
  const toServer = yield* Queue.unbounded<string>()
  const read: Array<unknown> = []
  const closed = yield* Deferred.make<Socket.CloseEvent>()
  const reading = Latch.makeUnsafe(true)
  const take = Effect.fnUntraced(function* (chunks: ReadonlyArray<string | Uint8Array>) {
    yield* reading.await
    for (const chunk of chunks) read.push(JSON.parse(String(chunk)))
  })
  const socket = Socket.make({
    reader: Effect.succeed({ pull: Queue.takeAll(toServer), upgrade: Socket.SocketUpgradeError.unsupported }),
    writer: Effect.succeed({
      write: (chunk) => (Socket.isCloseEvent(chunk) ? Effect.asVoid(Deferred.succeed(closed, chunk)) : take([chunk])),
      writeAll: take
    })
  })
  const verified = { principal: new Principal({ userId, role: "shopper", region: "us" }), expiresAt: 1e15 }
  const fiber = yield* Effect.forkScoped(
    Effect.scoped(
      OrderSocket.serve(socket, {
        changes,
        orders: {
          Get: () => answers.get,
          History: () => answers.history ?? Effect.succeed([]),
          List: () => Effect.succeed({ items: [], nextCursor: null })
        },
        tokens: { verifyUntil: () => Effect.succeed(verified) },
        asking: (effect) => effect
      })
    )
  )
  yield* Queue.offer(toServer, JSON.stringify({ auth: "token" }))
  return {
    read,
    reading,
    closed: Deferred.await(closed),
    served: Fiber.await(fiber),
    send: (frame: unknown) => Queue.offer(toServer, JSON.stringify(frame)),
    tell: changes.tell
  }
})

/** Lets other fibers go on until it is true. */
const once = (isTrue: () => boolean) =>
  Effect.gen(function* () {
    for (let turn = 0; !isTrue(); turn++) {
      if (turn > 10_000) return yield* Effect.die(new Error("it never came true"))
      yield* Effect.sleep(1)
    }
  })

test("changes that come while a client is caught up follow what it had missed, each once", () =>
  Effect.gen(function* () {
    const asked = Latch.makeUnsafe(false)
    const answer = Latch.makeUnsafe(false)
    const { read, send, tell } = yield* client({
      get: Effect.succeed(order(4, "FULFILLED")),
      history: Effect.gen(function* () {
        asked.openUnsafe()
        yield* answer.await
        return [entry(1, "PENDING"), entry(2, "PENDING"), entry(3, "PAID"), entry(4, "FULFILLED")]
      })
    })
    yield* send({ subscribe: { orderId, after: 1 } })
    yield* asked.await
    yield* tell(envelope(OrderFulfilled.type, 4))
    answer.openUnsafe()
    yield* once(() => read.length === 2)
    expect(read).toMatchObject([
      { orderId, status: "PAID", version: 3, occurredAt: "2026-01-31T08:00:00.000Z" },
      { orderId, status: "FULFILLED", version: 4 }
    ])
    // The bus may tell again, late, and things that change no status.
    yield* tell(envelope(OrderPaid.type, 3))
    yield* tell(envelope(OrderFulfilled.type, 4))
    yield* tell(envelope(OrderPaymentStarted.type, 5))
    yield* send({ subscribe: "all" })
    yield* once(() => read.length > 2)
    expect(read.slice(2)).toMatchObject([{ error: { code: "validation_failed" } }])
  }).pipe(Effect.scoped, Effect.runPromise))

test("a client that does not read is sent away when its bound is reached, and hears why", () =>
  Effect.gen(function* () {
    const { closed, read, reading, send, served, tell } = yield* client({ get: Effect.succeed(order(1, "PENDING")) })
    yield* send({ subscribe: "mine" })
    yield* send({ subscribe: { orderId } })
    yield* once(() => read.length === 1)
    reading.closeUnsafe()
    const { waitingFrames } = OrdersLive.limits
    // One is with the writer, as many as the bound wait; the next one is too many.
    for (let nth = 0; nth <= waitingFrames; nth++) {
      yield* tell(envelope(OrderPaid.type, 1, `ORDER-X${nth}`))
      if (nth === 0) yield* Effect.sleep(20)
    }
    yield* tell(envelope(OrderPaid.type, 1, "ORDER-LAST"))
    expect(yield* closed).toMatchObject({ code: 4429, reason: "slow_reader" })
    yield* served
    // Nobody is told any more: nothing gathers for a client that is gone.
    expect(yield* tell(envelope(OrderPaid.type, 1, "ORDER-AFTER"))).toBe(false)
    expect(read).toHaveLength(1)
  }).pipe(Effect.scoped, Effect.runPromise))

test("a socket watches so many orders one by one, and no more", () =>
  Effect.gen(function* () {
    const { read, send } = yield* client({ get: Effect.succeed(order(1, "PENDING")) })
    const { subscriptions } = OrdersLive.limits
    for (let nth = 0; nth <= subscriptions; nth++) yield* send({ subscribe: { orderId: `ORDER-${nth}`, after: 1 } })
    yield* send({ subscribe: { orderId: "ORDER-0", after: 0 } })
    yield* send({ subscribe: "mine" })
    yield* send({ subscribe: "all" })
    yield* once(() => read.length === 2)
    expect(read).toMatchObject([
      { error: { code: "too_many_subscriptions", status: 429 } },
      { error: { code: "validation_failed" } }
    ])
  }).pipe(Effect.scoped, Effect.runPromise))

/** The text of an event stream, as it is read. */
const opened = Effect.fnUntraced(function* (sales: SaleEvents.SaleEvents, lastEventId?: string) {
  const draining = yield* Deferred.make<void>()
  const { body } = yield* Effect.provideService(SaleStream.response(sales, lastEventId), ServerStatus, {
    isDraining: Effect.succeed(false),
    awaitDraining: Deferred.await(draining),
    inFlight: Effect.succeed(1)
  })
  if (body._tag !== "Stream") return yield* Effect.die(body)
  const pull = yield* Stream.toPull(Stream.decodeText(body.stream))
  return { drain: Deferred.succeed(draining, undefined), next: Effect.map(pull, (chunks) => chunks.join("")) }
})

const sale = (nth: number): SaleEvents.SaleEvent => ({
  id: `E-${nth}`,
  bytes: SaleEvents.message("flash_sale.started", { nth }, `E-${nth}`)
})
const idsIn = (text: string) => [...text.matchAll(/^id: (.+)$/gm)].map(([, id]) => id)

/** Reads a stream to its end. */
const rest = Effect.fnUntraced(function* (next: Effect.Effect<string, unknown>) {
  let text = ""
  for (;;) {
    const part = yield* Effect.option(next)
    if (part._tag === "None") return text
    text += part.value
  }
})

test("an event stream that nobody reads ends at its bound, and says why to whoever reads on", () =>
  Effect.gen(function* () {
    const sales = SaleEvents.make()
    const { next } = yield* opened(sales)
    expect(yield* next).toMatch(/^retry: \d+\n\n$/)
    const reader = yield* Effect.forkChild(next)
    yield* once(() => sales.joined() === 1)
    sales.tell(sale(0))
    expect(idsIn(yield* Fiber.join(reader))).toEqual(["E-0"])
    for (let nth = 1; nth <= FlashSalesLive.limits.waitingEvents + 1; nth++) sales.tell(sale(nth))
    expect(sales.joined()).toBe(0)
    yield* Effect.sleep(20)
    expect(yield* rest(next)).toEndWith('event: error\ndata: {"code":"slow_reader"}\n\n')
  }).pipe(Effect.scoped, Effect.runPromise))

test("an event stream ends when the server stops, and says when to come back", () =>
  Effect.gen(function* () {
    const { drain, next } = yield* opened(SaleEvents.make())
    yield* next
    yield* drain
    expect(yield* rest(next)).toMatch(/^retry: \d+\n\n$/)
  }).pipe(Effect.scoped, Effect.runPromise))

test("what stood in the log comes before what was told since, each event once, and no more than is kept", () => {
  const sales = SaleEvents.make()
  expect([sales.tell(sale(3)), sales.tell(sale(3))]).toEqual([true, false])
  sales.precede([sale(1), sale(2), sale(3)])
  sales.tell(sale(4))
  const since = (id: string) => sales.since(id)?.map((event) => event.id)
  expect([since("E-1"), since("E-4"), since("E-9")]).toEqual([["E-2", "E-3", "E-4"], [], undefined])
  for (let nth = 5; nth < 5 + FlashSalesLive.limits.keptEvents; nth++) sales.tell(sale(nth))
  expect([since("E-4"), since("E-5")?.length]).toEqual([undefined, FlashSalesLive.limits.keptEvents - 1])
})
