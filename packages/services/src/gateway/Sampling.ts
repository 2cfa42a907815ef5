import { Config, Context, Effect, Layer, Random, Schema } from "effect"
import { HttpMiddleware } from "effect/http"

/** The share of requests that are traced when their caller has not decided: 1 unless `MERKATO_TRACE_SAMPLING` says less. */
const Share = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 }))
const sampling = Config.schema(Share, "MERKATO_TRACE_SAMPLING").pipe(Config.withDefault(1))

/** Which requests get spans. Whoever asks first decides; of those that are traced it is remembered. */
export interface Sampler {
  readonly isTraced: (request: object, path: string, traceParent: string | undefined) => boolean
}
export const Sampler = Context.Reference<Sampler>("merkato/gateway/Sampler", {
  defaultValue: () => ({ isTraced: () => true })
})

/**
 * Which requests get spans at all: those whose caller samples, and a share of the others. Probes never do, and neither do
 * live connections: their spans would last for hours.
 */
export const Sampling = Layer.effectContext(
  Effect.gen(function* () {
    const ratio = yield* Effect.orDie(sampling)
    const random = yield* Random.Random
    const traced = new WeakSet<object>()
    const draw = (path: string, traceParent = "") => {
      if (/^\/(healthz|readyz|metrics|ws\/|sse\/)/.test(path)) return false
      const flag = /-([0-9a-f]{2})$/.exec(traceParent)?.[1]
      return flag === undefined ? random.nextDoubleUnsafe() < ratio : (Number.parseInt(flag, 16) & 1) === 1
    }
    const isTraced: Sampler["isTraced"] = (request, path, traceParent) => {
      if (traced.has(request)) return true
      if (!draw(path, traceParent)) return false
      traced.add(request)
      return true
    }
    return Context.make(Sampler, { isTraced }).pipe(
      Context.add(
        HttpMiddleware.TracerDisabledWhen,
        ({ headers, source, url }) => !isTraced(source, url, headers["traceparent"])
      )
    )
  })
)

/** A request that has no span of its own gets none further in. */
export const asSampled = <A, E, R>(app: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => (fiber.cache.span?.sampled === true ? app : Effect.withTracerEnabled(app, false)))
