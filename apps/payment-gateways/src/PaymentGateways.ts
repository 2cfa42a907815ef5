import { resolve } from "node:path"
import { Console, Duration, Effect, Layer, Option, Redacted } from "effect"
import { Command, Flag } from "effect/cli"
import { DataFolder } from "@merkato/infra/postgres/DataFolder"
import * as DatabaseUrl from "@merkato/infra/postgres/DatabaseUrl"
import * as Telemetry from "@merkato/infra/telemetry/Telemetry"
import * as Folder from "@merkato/infra/runtime/Folder"
import * as PaymentProviders from "@merkato/services/paymentProviders"

const welcome = (port: number) => `
Test payment gateways at http://localhost:${port}
  SOAP       http://localhost:${port}/soap/payments (WSDL: ?wsdl)
  REST       http://localhost:${port}/v1/attempts/{attemptId}
  Control    http://localhost:${port}/control/soap, /control/rest

A shop uses them when it is started with MERKATO_PAYMENT_GATEWAY_URL=http://localhost:${port}
`

/** The books: at the URL that was given, else at `DATABASE_URL`, else in an embedded Postgres in the folder. */
const books = (given: Option.Option<string>, dataDir: string) => {
  if (Option.isNone(given)) return DatabaseUrl.DatabaseUrl.layer.pipe(Layer.provide(DataFolder.layer(dataDir)))
  const url = Redacted.make(given.value)
  return Layer.effect(DatabaseUrl.DatabaseUrl, Effect.as(DatabaseUrl.check(url, "--database-url"), { url }))
}

const run = (options: {
  readonly port: number
  readonly hostname: string
  readonly databaseUrl: Option.Option<string>
  readonly dataDir: string
}) =>
  Effect.gen(function* () {
    const { hostname, port } = options
    const { url } = yield* DatabaseUrl.DatabaseUrl
    yield* Layer.build(PaymentProviders.testGateways(url, { port, hostname, drainTimeout: Duration.seconds(10) }))
    yield* Console.log(welcome(port))
    return yield* Effect.never
  }).pipe(
    // Inside of what is provided: the gateways drain while they still have their books.
    Effect.scoped,
    Effect.provide(
      books(options.databaseUrl, options.dataDir).pipe(Layer.provideMerge(Telemetry.layer("merkato-payment-gateways")))
    )
  )

const flags = {
  port: Flag.Int("port").pipe(
    Flag.withDescription("Port of both gateways and of their control (default 8090)"),
    Flag.withDefault(8090)
  ),
  host: Flag.String("host").pipe(
    Flag.withDescription("Address to listen on (default 127.0.0.1)"),
    Flag.withDefault("127.0.0.1")
  ),
  databaseUrl: Flag.String("database-url").pipe(
    Flag.withDescription("Postgres for the gateways' books (DATABASE_URL; else an embedded one in --data-dir)"),
    Flag.optional
  ),
  dataDir: Flag.String("data-dir").pipe(
    Flag.withDescription("Folder for the embedded Postgres; not the shop's (default .merkato-gateways)"),
    Folder.isNamed,
    Flag.withDefault(".merkato-gateways")
  )
}

export const paymentGateways = Command.make("payment-gateways", flags, ({ databaseUrl, dataDir, host, port }) =>
  run({ port, hostname: host, databaseUrl, dataDir: resolve(dataDir) })
).pipe(
  Command.withDescription("Run the simulated payment gateways, SOAP and REST, with books of their own. For tests only")
)
