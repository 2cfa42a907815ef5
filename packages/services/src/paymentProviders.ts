// Schemas are compiled instead of interpreted, as in deployment.ts: the gateways may be an app of their own.
import "effect/schema/SchemaJITCompiler/enable"
import { Config, Context, Duration, Effect, Layer, Option, type Redacted, Schema } from "effect"
import { FetchHttpClient, HttpRouter, HttpServer } from "effect/http"
import { SqlClient } from "effect/sql"
import * as BunHttpServer from "@merkato/infra/http/BunHttpServer"
import * as Database from "@merkato/infra/postgres/Database"
import { Health } from "./gateway/Health.ts"
import * as Gateway from "./gateway/index.ts"
import { PaymentGateways } from "./payments/PaymentGateways.ts"
import * as RestGateway from "./payments/RestGateway.ts"
import * as SoapGateway from "./payments/SoapGateway.ts"
import * as Psp from "./psp/index.ts"

/** A variable that should say where a payment gateway is does not hold a URL. Does not repeat it: it may hold a secret. */
export class BadGatewayUrl extends Schema.TaggedError<BadGatewayUrl>()("BadGatewayUrl", { variable: Schema.String }) {
  override get message() {
    return `${this.variable} cannot be used: expected http://host:port or https://host`
  }
}

const gatewayUrl = Effect.fnUntraced(function* (variable: string) {
  const given = yield* Config.option(Config.String(variable))
  if (Option.isNone(given)) return undefined
  const url = URL.canParse(given.value) ? new URL(given.value) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol)) return yield* new BadGatewayUrl({ variable })
  return given.value.replace(/\/+$/, "")
})

/** Payments' way to gateways: SOAP at its endpoint first, then REST at its base URL. */
const gatewaysAt = (soapEndpoint: string, restBaseUrl: string) =>
  Layer.effect(
    PaymentGateways,
    Effect.gen(function* () {
      return { inOrder: [yield* SoapGateway.make(soapEndpoint), yield* RestGateway.make(restBaseUrl)] as const }
    })
  ).pipe(Layer.provide(FetchHttpClient.layer))

/** Readiness: the database answers. */
const withDatabase = Layer.effectContext(
  Effect.map(SqlClient.SqlClient, (sql) =>
    Context.make(
      Gateway.Readiness,
      sql`select 1`.pipe(
        Effect.as([]),
        Effect.orElseSucceed(() => ["database"])
      )
    )
  )
)

/**
 * Both test gateways and the door that tells them how to behave, on one port, with their books in a database. Their
 * router is their own: `HttpRouter.serve` would take that of the shop around it, and put their doors on the shop's port.
 */
export const testGateways = (url: Redacted.Redacted, options: BunHttpServer.Options) =>
  Layer.unwrap(
    Effect.map(HttpRouter.HttpRouter, (router) => HttpServer.serve(Gateway.asSampled(router.asHttpEffect())))
  ).pipe(
    Layer.provide(Layer.merge(Psp.routes, Layer.provide(Health, withDatabase))),
    Layer.provide(HttpRouter.layer),
    Layer.provide(Database.layer({ url, maxConnections: 4, applicationName: "merkato-psp" })),
    Layer.provideMerge(BunHttpServer.layer(options)),
    Layer.provide(Gateway.Sampling),
    Layer.provide(
      Layer.effectDiscard(
        Effect.provide(Psp.migrate, Database.layer({ url, maxConnections: 1, applicationName: "merkato-migrations" }))
      )
    ),
    Layer.fresh
  )

/**
 * The test gateways on a port of their own, and payments' way to them. Only for shops that have no real provider. Their
 * server is theirs alone: what the shop offers at hand is for the shop's.
 */
const builtInGateways = (url: Redacted.Redacted) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const { address } = yield* HttpServer.HttpServer
      const baseUrl = `http://127.0.0.1:${"port" in address ? address.port : 0}`
      return gatewaysAt(`${baseUrl}/soap/payments`, baseUrl)
    })
  ).pipe(Layer.provide(testGateways(url, { port: 0, drainTimeout: Duration.millis(200) })))

/**
 * Where money is moved: at `MERKATO_PAYMENT_GATEWAY_URL`, under which both gateways are; either may be elsewhere, at
 * `MERKATO_PAYMENT_SOAP_URL` (its endpoint) or `MERKATO_PAYMENT_REST_URL` (its base). Without any of them: at the
 * built-in test gateways.
 */
export const paymentGateway = (url: Redacted.Redacted) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const both = yield* gatewayUrl("MERKATO_PAYMENT_GATEWAY_URL")
      const soap = (yield* gatewayUrl("MERKATO_PAYMENT_SOAP_URL")) ?? (both && `${both}/soap/payments`)
      const rest = (yield* gatewayUrl("MERKATO_PAYMENT_REST_URL")) ?? both
      if (soap === undefined && rest === undefined) return builtInGateways(url)
      // One of two providers alone is no deployment: money held at the one that is missing could not be asked for.
      if (soap === undefined) return yield* new BadGatewayUrl({ variable: "MERKATO_PAYMENT_SOAP_URL" })
      if (rest === undefined) return yield* new BadGatewayUrl({ variable: "MERKATO_PAYMENT_REST_URL" })
      return gatewaysAt(soap, rest)
    })
  )
