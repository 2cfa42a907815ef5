import { Effect, Semaphore } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Tokens } from "@merkato/infra/auth/Tokens"
import * as FlashSalesLive from "@merkato/rpc/live/FlashSalesLive"
import * as OrdersLive from "@merkato/rpc/live/OrdersLive"
import { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import { problem } from "../Problems.ts"
import { Live } from "./Live.ts"
import * as OrderSocket from "./OrderSocket.ts"
import * as SaleStream from "./SaleStream.ts"

/** Questions of all sockets to the orders context at a time: when a gateway is replaced, all its clients come at once. */
const questionsAtATime = 16

/** Live connections of each kind in a process; more are sent elsewhere. */
const mostConnections = 20_000

const unavailable = (detail: string) =>
  problem({
    status: 503,
    code: "live_unavailable",
    title: "Live updates are unavailable",
    detail,
    headers: { "retry-after": "5" }
  })

const upgradeRequired = problem({
  status: 426,
  code: "upgrade_required",
  title: "Upgrade required",
  detail: "Orders are watched over a WebSocket",
  headers: { upgrade: "websocket", connection: "upgrade" }
})

/** `/ws/orders` and `/sse/flash-sales`. */
export const LiveRoutes = HttpRouter.use(
  Effect.fn(function* (router) {
    const live = yield* Live
    const orders = yield* OrdersRpc
    const tokens = yield* Tokens
    const asking = (yield* Semaphore.make(questionsAtATime)).withPermits(1)
    const noBus = unavailable("This gateway has no event bus: KAFKA_BROKERS or DATABASE_URL would name it")
    const notYet = unavailable("This gateway does not hear the event bus yet")
    const full = unavailable("This gateway has as many live connections as it takes")
    let sockets = 0
    /** What a new connection is served with, when there are so many already. */
    const admit = (open: (live: Live) => number) => {
      if (live === undefined) return { refusal: noBus }
      if (!live.isListening()) return { refusal: notYet }
      return open(live) >= mostConnections ? { refusal: full } : { live }
    }

    yield* router.add(
      "GET",
      OrdersLive.path,
      Effect.gen(function* () {
        const request = yield* HttpServerRequest.HttpServerRequest
        if (request.headers["upgrade"]?.toLowerCase() !== "websocket") return yield* upgradeRequired
        const { live, refusal } = admit(() => sockets)
        if (live === undefined) return yield* refusal
        yield* Effect.acquireUseRelease(
          Effect.sync(() => (sockets += 1)),
          () =>
            Effect.flatMap(request.upgrade, (socket) =>
              Effect.scoped(OrderSocket.serve(socket, { changes: live.orders, orders, tokens, asking }))
            ),
          () => Effect.sync(() => (sockets -= 1))
        )
        return HttpServerResponse.empty({ status: 101 })
      })
    )
    yield* router.add(
      "GET",
      FlashSalesLive.path,
      Effect.gen(function* () {
        const { headers } = yield* HttpServerRequest.HttpServerRequest
        const { live, refusal } = admit(({ sales }) => sales.joined())
        return live === undefined ? yield* refusal : yield* SaleStream.response(live.sales, headers["last-event-id"])
      })
    )
  })
)
