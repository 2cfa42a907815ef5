import { resolve } from "node:path"
import { Config, Console, Effect, Layer, Option, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import { DataFolder } from "@merkato/infra/postgres/DataFolder"
import { DatabaseUrl } from "@merkato/infra/postgres/DatabaseUrl"
import * as Telemetry from "@merkato/infra/telemetry/Telemetry"
import * as Folder from "@merkato/infra/runtime/Folder"
import { contextNames } from "@merkato/services/contexts"
import * as Deployment from "@merkato/services/deployment"
import { everything, type Place } from "./Everything.ts"
import * as Siblings from "./Siblings.ts"

interface Options extends Place {
  readonly processes: number
  readonly seed: boolean
}

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
    yield* Deployment.migrate(contextNames, url)
    yield* Layer.build(everything({ ...options, first: true }, url))
    yield* Siblings.start(options, options.processes, url)
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

/** Each has connections of its own to the database, of which the embedded one takes 200. */
const mostProcesses = 8

const flags = {
  port: Flag.Int("port").pipe(
    Flag.withDescription("Port to listen on (MERKATO_HTTP_PORT; 8080)"),
    Flag.filter(
      (port) => port >= 1 && port <= 65_535,
      () => "a whole number from 1 to 65535"
    ),
    Flag.optional
  ),
  dataDir: Flag.String("data-dir").pipe(
    Flag.withDescription("Folder for the database, the keys and the logs (MERKATO_DATA_DIR; .merkato)"),
    Folder.isNamed,
    Flag.optional
  ),
  profile: Flag.Literals("profile", ["embedded", "full"]).pipe(
    Flag.withDescription(
      "embedded: everything in one process on an embedded Postgres; full: events over Kafka, a cache in " +
        "Redis, schemas in a registry, read models in OpenSearch and Cassandra, all of them named (MERKATO_PROFILE; embedded)"
    ),
    Flag.optional
  ),
  processes: Flag.Int("processes").pipe(
    Flag.withDescription(
      `Processes that share the port, for more cores (MERKATO_PROCESSES; 1, at most ${mostProcesses})`
    ),
    Flag.optional
  ),
  noSeed: Flag.Boolean("no-seed").pipe(Flag.withDescription("Leave an empty shop empty"), Flag.withDefault(false))
}

/** What the environment says where no flag does. */
const settings = {
  port: Config.Port("MERKATO_HTTP_PORT").pipe(Config.withDefault(8080)),
  processes: Config.Int("MERKATO_PROCESSES").pipe(Config.withDefault(1)),
  dataDir: Config.String("MERKATO_DATA_DIR").pipe(Config.withDefault(".merkato")),
  profile: Config.Literals(["embedded", "full"], "MERKATO_PROFILE").pipe(Config.withDefault("embedded" as const))
}

/** What the full profile runs on besides Postgres. */
const serversOfFull = [
  "KAFKA_BROKERS",
  "REDIS_URL",
  "SCHEMA_REGISTRY_URL",
  "OPENSEARCH_URL",
  "CASSANDRA_CONTACT_POINTS"
] as const

const inWords = (names: ReadonlyArray<string>) =>
  [names.slice(0, -1).join(", "), names.at(-1)].filter((part) => part !== "").join(" and ")

/** The full profile runs on servers that somebody has to name. */
class ServersNotNamed extends Schema.TaggedError<ServersNotNamed>()("ServersNotNamed", {
  variables: Schema.Array(Schema.String)
}) {
  override get message() {
    return `--profile full wants ${inWords(this.variables)}; scripts/servers up starts what is named there, and prints it`
  }
}

class ProcessesOutOfRange extends Schema.TaggedError<ProcessesOutOfRange>()("ProcessesOutOfRange", {
  processes: Schema.Int
}) {
  override get message() {
    return `--processes wants a number from 1 to ${mostProcesses}, not ${this.processes}`
  }
}

export const shop = Command.make(
  "start",
  flags,
  Effect.fnUntraced(function* ({ noSeed, ...given }) {
    const profile = Option.isSome(given.profile) ? given.profile.value : yield* settings.profile
    if (profile === "full") {
      const variables = yield* Effect.filter(serversOfFull, (variable) =>
        Effect.map(Config.option(Config.String(variable)), Option.isNone)
      )
      if (variables.length > 0) return yield* new ServersNotNamed({ variables })
    }
    const port = Option.isSome(given.port) ? given.port.value : yield* settings.port
    const dataDir = resolve(Option.isSome(given.dataDir) ? given.dataDir.value : yield* settings.dataDir)
    const processes = Option.isSome(given.processes) ? given.processes.value : yield* settings.processes
    if (processes < 1 || processes > mostProcesses) return yield* new ProcessesOutOfRange({ processes })
    if (processes > 1) yield* Siblings.portIsFree(port)
    return yield* run({ port, dataDir, processes, seed: !noSeed })
  })
).pipe(Command.withDescription("Start the whole shop"))
