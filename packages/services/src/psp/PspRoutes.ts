import { Effect, Layer, Schema } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { HttpServerRequest } from "effect/http"
import { Id } from "@merkato/domain/kernel/Ids"
import { behaviourOf, Psp } from "./Psp.ts"

/** How long the gateway is silent when told to be: longer than any caller waits. */
const silence = "60 seconds"

const Params = Schema.Struct({ attemptId: Id })
const Authorisation = Schema.Struct({
  orderId: Id,
  amount: Schema.Finite,
  currency: Schema.String,
  token: Schema.String
})

const attemptId = Effect.map(HttpRouter.schemaPathParams(Params), (params) => params.attemptId)
const json = (body: unknown, status = 200) => HttpServerResponse.jsonUnsafe(body, { status })
const badRequest = () => Effect.succeed(json({ error: "bad request" }, 400))

/** The REST side of the built-in test gateway: `/v1/attempts/{id}`, `…/authorise`, `…/capture`, `…/void`. */
export const PspRoutes = HttpRouter.use(
  Effect.fn(function* (router) {
    const psp = yield* Psp
    yield* router.add(
      "POST",
      "/v1/attempts/:attemptId/authorise",
      Effect.gen(function* () {
        const id = yield* attemptId
        const { token, ...request } = yield* HttpServerRequest.schemaBodyJson(Authorisation)
        const behaviour = behaviourOf(token)
        if (behaviour === "down") return json({ error: "down for maintenance" }, 503)
        if (behaviour === "silent") {
          yield* Effect.sleep(silence)
          return json({ error: "gateway timeout" }, 504)
        }
        const declined = behaviour === "declined" ? "the bank refused" : null
        const attempt = yield* psp.authorise({ ...request, attemptId: id, declined })
        if (behaviour === "lost") yield* Effect.sleep(silence)
        return json(attempt)
      }).pipe(Effect.catchTags({ SchemaError: badRequest, HttpServerError: badRequest }))
    )
    yield* router.add(
      "POST",
      "/v1/attempts/:attemptId/capture",
      Effect.gen(function* () {
        const attempt = yield* psp.capture(yield* attemptId)
        return attempt === undefined ? json({ error: "unknown attempt" }, 404) : json(attempt)
      }).pipe(Effect.catchTag("SchemaError", badRequest))
    )
    yield* router.add(
      "POST",
      "/v1/attempts/:attemptId/void",
      Effect.gen(function* () {
        return json(yield* psp.void(yield* attemptId))
      }).pipe(Effect.catchTag("SchemaError", badRequest))
    )
    yield* router.add(
      "GET",
      "/v1/attempts/:attemptId",
      Effect.gen(function* () {
        const attempt = yield* psp.find(yield* attemptId)
        return attempt === undefined ? json({ error: "unknown attempt" }, 404) : json(attempt)
      }).pipe(Effect.catchTag("SchemaError", badRequest))
    )
  })
).pipe(Layer.provide(Psp.layer))
