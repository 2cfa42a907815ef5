import { Console, Effect, FileSystem, Path } from "effect"
import { Command, Flag } from "effect/cli"
import { OpenApi } from "effect/http-api"
import { Api } from "@merkato/rpc/rest/Api"

const exporting = Command.make(
  "export",
  {
    dir: Flag.Directory("dir").pipe(
      Flag.withDescription("Folder to write to, made if need be (default contracts)"),
      Flag.withDefault("contracts")
    )
  },
  Effect.fn("contracts.export")(function* ({ dir }) {
    const files = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const file = path.join(dir, "openapi.json")
    yield* files.makeDirectory(dir, { recursive: true })
    yield* files.writeFileString(file, `${JSON.stringify(OpenApi.fromApi(Api), null, 2)}\n`)
    yield* Console.log(file)
  })
).pipe(Command.withDescription("Write openapi.json, the description of the REST surface, to a folder"))

export const contracts = Command.make("contracts").pipe(
  Command.withDescription("What others may rely on, as files"),
  Command.withSubcommands([exporting])
)
