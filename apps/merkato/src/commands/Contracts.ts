import { Console, Effect, FileSystem, Option, Path } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { OpenApi } from "effect/http-api"
import { allEvents } from "@merkato/domain/events"
import { writtenSchema } from "@merkato/domain/kernel/EventSchema"
import { asyncApi } from "@merkato/rpc/events/AsyncApi"
import { Api } from "@merkato/rpc/rest/Api"

/** What others may rely on: paths below the folder, and what stands there. */
const exported = (): ReadonlyArray<readonly [string, unknown]> => [
  ["openapi.json", OpenApi.fromApi(Api)],
  ["asyncapi.json", asyncApi()],
  ...allEvents.map((definition) => [`events/${definition.type}.json`, writtenSchema(definition)] as const)
]

const exporting = Command.make(
  "export",
  {
    folder: Argument.Directory("folder").pipe(Argument.withDescription("The same as --dir"), Argument.optional),
    dir: Flag.Directory("dir").pipe(
      Flag.withDescription("Folder to write to, made if need be (default contracts)"),
      Flag.withDefault("contracts")
    )
  },
  Effect.fn("contracts.export")(function* ({ folder, dir: named }) {
    const dir = Option.getOrElse(folder, () => named)
    const files = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    yield* files.makeDirectory(path.join(dir, "events"), { recursive: true })
    for (const [name, content] of exported()) {
      const file = path.join(dir, name)
      yield* files.writeFileString(file, `${JSON.stringify(content, null, 2)}\n`)
      yield* Console.log(file)
    }
  })
).pipe(
  Command.withDescription(
    "Write openapi.json (REST), asyncapi.json (events) and events/*.json (the schema of each event) to a folder"
  )
)

export const contracts = Command.make("contracts").pipe(
  Command.withDescription("What others may rely on, as files"),
  Command.withSubcommands([exporting])
)
