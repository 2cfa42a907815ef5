import { resolve } from "node:path"
import { Config, Console, Duration, Effect, Layer, Option, type Redacted, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import { DataFolder } from "@merkato/infra/postgres/DataFolder"
import { DatabaseUrl } from "@merkato/infra/postgres/DatabaseUrl"
import * as Telemetry from "@merkato/infra/telemetry/Telemetry"
import { Switchboard } from "@merkato/rpc/contract/Contract"
import { contextNames } from "@merkato/services/contexts"
import * as Deployment from "@merkato/services/deployment"
import { gateway } from "@merkato/services/gateway/index"
import { seeding } from "@merkato/services/seed"

interface Options {
  readonly port: number
  readonly dataDir: string
  readonly seed: boolean
}

/** All contexts and the edge in one process. */
const everything = ({ port, dataDir, seed }: Options, url: Redacted.Redacted) =>
  Layer.unwrap(
    Effect.as(
      Deployment.migrate(contextNames, url),
      Deployment.http(
        Layer.mergeAll(gateway(contextNames), seed ? seeding : Layer.empty).pipe(
          Layer.provide(Deployment.caches(url)),
          Layer.provide(Deployment.running(contextNames, { contexts: () => url, bus: url })),
          Layer.provide(Deployment.readiness(Deployment.needsOf(contextNames, true))),
          Layer.provide(Deployment.paymentGateway(url)),
          Layer.provide(Deployment.policies(dataDir)),
          Layer.provide(Deployment.security(dataDir)),
          Layer.provide(Switchboard.layer)
        ),
        { port, hostname: "0.0.0.0", reusePort: false, drainTimeout: Duration.seconds(10) }
      )
    )
  )

const welcome = (port: number, dataDir: string) => `
Merkato is open at http://localhost:${port}
  API docs   http://localhost:${port}/docs
  Products   http://localhost:${port}/api/v1/products
  Data in    ${dataDir}

To buy something:
  export TOKEN=$(bun run merkato token --user USER-1 --role shopper --data-dir ${dataDir})
  curl -s 'localhost:${port}/api/v1/products?q=apples'
  curl -s localhost:${port}/api/v1/orders -H "authorization: Bearer $TOKEN" -H 'idempotency-key: my-first-order' \\
    -H 'content-type: application/json' -d '{"items":[{"productId":"<a productId from above>","qty":2}]}'

Ctrl-C stops the shop; its data stays.
`

const run = (options: Options) =>
  Effect.gen(function* () {
    const { url } = yield* DatabaseUrl
    yield* Layer.build(everything(options, url))
    yield* Console.log(welcome(options.port, options.dataDir))
    return yield* Effect.never
  }).pipe(
    // Inside of what is provided: the shop drains while it still has its database.
    Effect.scoped,
    Effect.provide(
      DatabaseUrl.layer.pipe(
        Layer.provide(DataFolder.layer(options.dataDir)),
        Layer.provideMerge(Telemetry.layer("merkato-shop"))
      )
    )
  )

const flags = {
  port: Flag.Int("port").pipe(Flag.withDescription("Port to listen on (MERKATO_HTTP_PORT; 8080)"), Flag.optional),
  dataDir: Flag.String("data-dir").pipe(
    Flag.withDescription("Folder for the database, the keys and the logs (MERKATO_DATA_DIR; .merkato)"),
    Flag.optional
  ),
  profile: Flag.Literals("profile", ["embedded", "full"]).pipe(
    Flag.withDescription("embedded: everything in one process on an embedded Postgres (MERKATO_PROFILE; embedded)"),
    Flag.optional
  ),
  noSeed: Flag.Boolean("no-seed").pipe(Flag.withDescription("Leave an empty shop empty"), Flag.withDefault(false))
}

/** What the environment says where no flag does. */
const settings = {
  port: Config.Port("MERKATO_HTTP_PORT").pipe(Config.withDefault(8080)),
  dataDir: Config.String("MERKATO_DATA_DIR").pipe(Config.withDefault(".merkato")),
  profile: Config.Literals(["embedded", "full"], "MERKATO_PROFILE").pipe(Config.withDefault("embedded" as const))
}

/** A profile of a later version. */
class ProfileNotThere extends Schema.TaggedError<ProfileNotThere>()("ProfileNotThere", { profile: Schema.String }) {
  override get message() {
    return `--profile ${this.profile} is not there yet; this version runs the embedded profile`
  }
}

export const shop = Command.make(
  "start",
  flags,
  Effect.fnUntraced(function* ({ noSeed, ...given }) {
    const profile = Option.isSome(given.profile) ? given.profile.value : yield* settings.profile
    if (profile === "full") return yield* new ProfileNotThere({ profile })
    const port = Option.isSome(given.port) ? given.port.value : yield* settings.port
    const dataDir = resolve(Option.isSome(given.dataDir) ? given.dataDir.value : yield* settings.dataDir)
    return yield* run({ port, dataDir, seed: !noSeed })
  })
).pipe(Command.withDescription("Start the whole shop in one process"))
