import { Context, Effect } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { PrometheusMetrics } from "effect/observability"
import { ServerStatus } from "@merkato/infra/http/BunHttpServer"

/** What has to be true before traffic may come, and what of it is not yet. Empty: ready. */
export const Readiness = Context.Reference<Effect.Effect<ReadonlyArray<string>>>("merkato/gateway/Readiness", {
  defaultValue: () => Effect.succeed([])
})

/** `/healthz`: the process lives. `/readyz`: it may be given work. `/metrics`: Prometheus. */
export const Health = HttpRouter.use(
  Effect.fn(function* (router) {
    const readiness = yield* Readiness
    yield* router.add("GET", "/healthz", HttpServerResponse.jsonUnsafe({ status: "ok" }))
    yield* router.add(
      "GET",
      "/readyz",
      Effect.gen(function* () {
        const status = yield* ServerStatus
        const waitingFor = (yield* status.isDraining) ? ["draining"] : yield* readiness
        return waitingFor.length === 0
          ? HttpServerResponse.jsonUnsafe({ status: "ready" })
          : HttpServerResponse.jsonUnsafe({ status: "not ready", waitingFor }, { status: 503 })
      })
    )
    yield* router.add(
      "GET",
      "/metrics",
      Effect.map(PrometheusMetrics.format(), (text) =>
        HttpServerResponse.text(text, { contentType: "text/plain; version=0.0.4; charset=utf-8" })
      )
    )
  })
)
