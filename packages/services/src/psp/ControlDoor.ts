import { Effect, Schema } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Conduct, Conducts } from "./Conduct.ts"
import { GatewayName } from "./Psp.ts"

const Params = Schema.Struct({ gateway: GatewayName })
const gatewayOf = Effect.map(HttpRouter.schemaPathParams(Params), (params) => params.gateway)

const unknown = () =>
  Effect.succeed(
    HttpServerResponse.jsonUnsafe(
      { code: "invalid_request", message: "There are the gateways soap and rest, and the modes of the runbook" },
      { status: 400 }
    )
  )

/** Tells a test gateway how to behave, at `/control/soap` and `/control/rest`. No real gateway has such a door. */
export const ControlDoor = HttpRouter.use(
  Effect.fn(function* (router) {
    const conducts = yield* Conducts
    yield* router.add(
      "PUT",
      "/control/:gateway",
      Effect.gen(function* () {
        const gateway = yield* gatewayOf
        const conduct = yield* HttpServerRequest.schemaBodyJson(Conduct)
        yield* conducts.set(gateway, conduct)
        yield* Effect.logInfo(`The ${gateway} gateway is told to be ${conduct.mode}`, conduct)
        return HttpServerResponse.jsonUnsafe(conduct)
      }).pipe(Effect.catchTags({ SchemaError: unknown, HttpServerError: unknown }))
    )
    yield* router.add(
      "GET",
      "/control/:gateway",
      Effect.gen(function* () {
        return HttpServerResponse.jsonUnsafe(yield* conducts.get(yield* gatewayOf))
      }).pipe(Effect.catchTag("SchemaError", unknown))
    )
  })
)
