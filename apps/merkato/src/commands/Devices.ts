import { Config, Console, Effect, FileSystem, Path, Redacted } from "effect"
import { Command, Flag } from "effect/cli"
import { accessFile, decodeDevices, passwordFile } from "@merkato/infra/mqtt/MosquittoAccess"
import { brokerOf } from "@merkato/infra/mqtt/MqttWhereNamed"
import { CommandFailed } from "../Failure.ts"

/** The shop's own name and secret at the broker, as `MQTT_URL` has them. */
const shopOf = Effect.fnUntraced(function* (url: string) {
  const { username, password } = brokerOf(url) ?? {}
  if (username === undefined || password === undefined) {
    return yield* new CommandFailed({
      reason: "MQTT_URL is to be mqtt://user:password@host:port, as the shop gets it."
    })
  }
  return { name: username, secret: Redacted.value(password) }
})

const mosquitto = Command.make(
  "mosquitto",
  {
    from: Flag.File("from", { mustExist: true }).pipe(
      Flag.withDescription('JSON: [{"deviceId": "scale-1", "secret": "…", "skus": ["APPLES"]}]')
    ),
    dir: Flag.Directory("dir").pipe(
      Flag.withDescription("Folder to write `passwords` and `access` to (default .)"),
      Flag.withDefault(".")
    )
  },
  Effect.fn("devices.mosquitto")(function* ({ from, dir }) {
    const files = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const shop = yield* shopOf(Redacted.value(yield* Config.Redacted("MQTT_URL")))
    const devices = yield* decodeDevices(yield* files.readFileString(from)).pipe(
      Effect.mapError(({ message }) => new CommandFailed({ reason: `${from} is no list of devices: ${message}` }))
    )
    yield* files.makeDirectory(dir, { recursive: true })
    for (const [name, content] of [
      ["passwords", passwordFile(shop, devices)],
      ["access", accessFile(shop, devices)]
    ] as const) {
      const file = path.join(dir, name)
      yield* files.writeFileString(file, content, { mode: 0o600 })
      yield* Console.log(file)
    }
  })
).pipe(
  Command.withDescription(
    "Write Mosquitto's password file (hashes only) and access list: each device may publish to its own SKUs alone, and the shop of MQTT_URL hears all of them"
  ),
  Command.withShortDescription("Write who may do what at a Mosquitto")
)

export const devices = Command.make("devices").pipe(
  Command.withDescription("Devices that tell of stock over MQTT"),
  Command.withSubcommands([mosquitto])
)
