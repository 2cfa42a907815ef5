import { Config, Console, Effect, FileSystem, Layer, Option, Path } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { OpenApi } from "effect/http-api"
import { allEvents } from "@merkato/domain/events"
import { writtenSchema } from "@merkato/domain/kernel/EventSchema"
import * as ConfluentSchemaRegistry from "@merkato/infra/events/registry/ConfluentSchemaRegistry"
import { checkAll, registerAll } from "@merkato/infra/events/registry/SchemaRegistry"
import { Policies } from "@merkato/infra/policy/Policies"
import { asyncApi } from "@merkato/rpc/events/AsyncApi"
import { subgraphs, supergraph } from "@merkato/rpc/graphql/Subgraphs"
import { inventoryProto } from "@merkato/rpc/grpc/InventoryGrpc"
import { Api } from "@merkato/rpc/rest/Api"
import { CommandFailed } from "../Failure.ts"

/** What others may rely on: paths below the folder, and what stands there. */
const exported = (): ReadonlyArray<readonly [string, unknown]> => [
  ["openapi.json", OpenApi.fromApi(Api)],
  ["asyncapi.json", asyncApi()],
  ["grpc/inventory.proto", inventoryProto],
  ["graphql/supergraph.graphql", supergraph],
  ...Object.entries(subgraphs).map(([name, sdl]) => [`graphql/${name}.graphql`, sdl] as const),
  ...allEvents.map((definition) => [`events/${definition.type}.json`, writtenSchema(definition)] as const)
]

const exporting = Command.make(
  "export",
  {
    folder: Argument.Directory("folder").pipe(Argument.withDescription("The same as --dir"), Argument.optional),
    dir: Flag.Directory("dir").pipe(
      Flag.withDescription("Folder to write to, made if need be (default contracts)"),
      Flag.optional
    )
  },
  Effect.fn("contracts.export")(function* ({ folder, dir: named }) {
    if (Option.isSome(folder) && Option.isSome(named)) {
      return yield* new CommandFailed({ reason: "Name the folder once: by itself, or with --dir." })
    }
    const dir = Option.getOrElse(
      Option.orElse(folder, () => named),
      () => "contracts"
    )
    const files = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    for (const [name, content] of exported()) {
      const file = path.join(dir, name)
      const text = typeof content === "string" ? content : `${JSON.stringify(content, null, 2)}\n`
      yield* files.makeDirectory(path.dirname(file), { recursive: true }).pipe(
        Effect.andThen(files.writeFileString(file, text)),
        Effect.mapError(({ message }) => new CommandFailed({ reason: `${file} cannot be written: ${message}` }))
      )
      yield* Console.log(file)
    }
  })
).pipe(
  Command.withDescription(
    "Write openapi.json (REST), asyncapi.json (events, live connections, webhooks), grpc/inventory.proto (stock over gRPC), events/*.json (the schema of each event) and graphql/*.graphql (the subgraphs, and the graph that they compose to) to a folder"
  )
)

const registering = Command.make(
  "register",
  {
    check: Flag.Boolean("check").pipe(
      Flag.withDescription("Only ask whether the registry would take them"),
      Flag.withDefault(false)
    )
  },
  Effect.fn("contracts.register")(function* ({ check }) {
    const url = yield* Config.option(Config.String("SCHEMA_REGISTRY_URL"))
    if (Option.isNone(url)) {
      return yield* new CommandFailed({
        reason: "SCHEMA_REGISTRY_URL is not set: name the registry, as in http://127.0.0.1:8081/apis/ccompat/v7."
      })
    }
    const registry = ConfluentSchemaRegistry.layer(url.value).pipe(Layer.provide(Policies.layerWith()))
    yield* Effect.provide(check ? checkAll(allEvents) : registerAll(allEvents), registry)
    yield* Console.log(`${allEvents.length} schemas ${check ? "would be taken" : "are registered"}`)
  })
).pipe(
  Command.withDescription(
    "Register the schemas of all events at SCHEMA_REGISTRY_URL, as the full profile does when it starts; says which one is refused"
  )
)

export const contracts = Command.make("contracts").pipe(
  Command.withDescription("What others may rely on: as files, and in the registry of schemas"),
  Command.withSubcommands([exporting, registering])
)
