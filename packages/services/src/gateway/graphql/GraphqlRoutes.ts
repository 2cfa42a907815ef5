import { Config, Effect, Option } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { RequestContext } from "@merkato/domain/kernel/RequestContext"
import type { CartRpc } from "@merkato/rpc/cart/CartRpc"
import type { CatalogueRpc } from "@merkato/rpc/catalogue/CatalogueRpc"
import { path } from "@merkato/rpc/graphql/Address"
import type { InventoryRpc } from "@merkato/rpc/inventory/InventoryRpc"
import type { OrdersRpc } from "@merkato/rpc/orders/OrdersRpc"
import type { PricingRpc } from "@merkato/rpc/pricing/PricingRpc"
import * as Requests from "./Requests.ts"

/** Whether the schema may be asked for: not in production, unless `MERKATO_GRAPHQL_INTROSPECTION` says so. */
const introspection = Effect.gen(function* () {
  const wanted = yield* Config.option(Config.Boolean("MERKATO_GRAPHQL_INTROSPECTION"))
  const environment = yield* Config.String("NODE_ENV").pipe(Config.withDefault("development"))
  return Option.getOrElse(wanted, () => environment !== "production")
})

const response = (
  body: unknown,
  { status, type, headers }: { status: number; type: Requests.MediaType; headers?: Readonly<Record<string, string>> }
) =>
  HttpServerResponse.text(JSON.stringify(body), {
    status,
    contentType: `${type}; charset=utf-8`,
    headers: { "cache-control": "no-store", ...headers }
  })

/** A request that does not come to be a query, in the form that clients of the graph read. */
const unreadable = (
  { code, detail, errors, headers, status }: Requests.Unreadable,
  type: Requests.MediaType = "application/json"
) =>
  Effect.map(RequestContext, ({ traceParent }) =>
    response(
      {
        errors: [
          {
            message: detail,
            extensions: { ...(errors === undefined ? {} : { errors }), code, traceId: traceParent.slice(3, 35) }
          }
        ]
      },
      { status, type, ...(headers === undefined ? {} : { headers }) }
    )
  )

const notAcceptable = new Requests.Unreadable({
  status: 406,
  code: "not_acceptable",
  detail: "What is here is told as application/graphql-response+json or application/json"
})

/** `/graphql`. */
export const GraphqlRoutes = HttpRouter.use(
  Effect.fn(function* (router) {
    const own = yield* Effect.context<CartRpc | CatalogueRpc | InventoryRpc | OrdersRpc | PricingRpc>()
    const options = { introspection: yield* Effect.orDie(introspection) }
    // What reads queries takes memory and time to load: that is for shops whose clients ask some. Whoever comes first and goes
    // away does not take it from the others.
    const engine = yield* Effect.promise(() => import("./Engine.ts")).pipe(
      Effect.flatMap(({ make }) => make(options)),
      Effect.provideContext(own),
      Effect.uninterruptible,
      Effect.cached
    )

    const answer = Effect.gen(function* () {
      const request = yield* HttpServerRequest.HttpServerRequest
      const type = Requests.mediaTypeOf(request.headers["accept"])
      if (type === undefined) return yield* unreadable(notAcceptable)
      return yield* Requests.read(request).pipe(
        Effect.flatMap((asked) => Effect.flatMap(engine, ({ answer }) => answer(asked))),
        // Nothing was begun: told by the status, to those who expect it (GraphQL over HTTP, section 6.4).
        Effect.map((result) =>
          response(result, {
            status: !("data" in result) && type === "application/graphql-response+json" ? 400 : 200,
            type
          })
        ),
        Effect.catchTag("Unreadable", (error) => unreadable(error, type))
      )
    })
    yield* router.add("POST", path, answer)
    yield* router.add("GET", path, answer)
  })
)
