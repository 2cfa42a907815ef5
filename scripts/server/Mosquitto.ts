import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect, Redacted, Result } from "effect"
import { accessFile, decodeDevices, type Device, passwordFile } from "@merkato/infra/mqtt/MosquittoAccess"
import { unpackPackages } from "./Apt.ts"
import { type Installing, type Place, Refused, run, type Server, tool } from "./Server.ts"

const version = "2.0.11"
/** The distribution mends its Mosquitto without asking: the series is what is pinned. */
const series = version.replace(/\.\d+$/, ".")

/** The server, the clients for who wants to try it, and the libraries that a plain machine lacks. */
const packages = ["mosquitto", "mosquitto-clients", "libmosquitto1", "libcjson1", "libdlt2", "libwrap0"]

const rootIn = ({ cache }: Pick<Installing, "cache">) => join(cache, `mosquitto-${version}`)

/** A program of it, as it is to be run: the machine's own, or the one in the cache with its libraries. */
export const programOf = (
  name: "mosquitto" | "mosquitto_pub" | "mosquitto_sub",
  place: Pick<Installing, "cache">
): { readonly command: string; readonly environment: Readonly<Record<string, string>> } | undefined => {
  const installed = tool(name)
  if (installed !== undefined) return { command: installed, environment: {} }
  const unpacked = join(rootIn(place), "usr", name === "mosquitto" ? "sbin" : "bin", name)
  if (!existsSync(unpacked)) return undefined
  const machine = { x64: "x86_64", arm64: "aarch64" }[process.arch as string] ?? process.arch
  return {
    command: unpacked,
    environment: { LD_LIBRARY_PATH: join(rootIn(place), "usr", "lib", `${machine}-linux-gnu`) }
  }
}

const fits = async (place: Installing): Promise<boolean> => {
  const program = programOf("mosquitto", place)
  if (program === undefined || programOf("mosquitto_pub", place) === undefined) return false
  const { output } = await run([program.command, "-h"], program.environment)
  return output.includes(`mosquitto version ${series}`)
}

/** The shop's name at the broker. */
const shop = "merkato"

const secretIn = ({ folder }: Place) => join(folder, "secret")
/** Made for this place: who takes it is the one that was started here. */
const secretOf = (place: Place): string => readFileSync(secretIn(place), "utf8")

/** The devices that may publish: those of the JSON file that `MQTT_DEVICES` names, read at the start. None without it. */
const devices = async (): Promise<ReadonlyArray<Device>> => {
  const path = process.env["MQTT_DEVICES"]
  if (path === undefined) return []
  const read = await Effect.runPromise(Effect.result(decodeDevices(readFileSync(path, "utf8"))))
  if (Result.isFailure(read)) throw new Refused(`MQTT_DEVICES: ${path} is no list of devices: ${read.failure.message}`)
  return read.success
}

const configuration = (place: Place, data: string) => `
listener ${place.port("mqtt")} 127.0.0.1
allow_anonymous false
password_file ${join(place.folder, "passwords")}
acl_file ${join(place.folder, "access")}
persistence true
persistence_location ${data}/
# On disk every second, and not every half hour: what devices were told it has is there after kill -9, but for the last moment.
# On every change would be slow: it writes all it keeps.
autosave_interval 1
log_type error
log_type warning
log_type notice
# For a shop that is away; beyond it Mosquitto drops messages that it has acknowledged.
max_queued_messages 1000000
max_inflight_messages 10000
max_packet_size 16384
${process.getuid?.() === 0 ? "user root" : ""}
`

/** Mosquitto: what devices publish to. */
export const mosquitto: Server = {
  name: "mosquitto",
  version,
  image: `eclipse-mosquitto:${version}`,
  ports: { mqtt: 1883 },
  needs: [],
  readyWithinMs: 20_000,
  install: async (place) => {
    if (await fits(place)) return
    await unpackPackages(packages, rootIn(place), `Mosquitto ${series}x`, place)
    if (!(await fits(place))) throw new Refused(`No Mosquitto ${series}x is to be had here: install one.`)
  },
  prepare: async (place) => {
    const program = programOf("mosquitto", place)
    if (program === undefined) throw new Refused(`Mosquitto ${series}x is gone.`)
    const [config, data] = [join(place.folder, "mosquitto.conf"), join(place.folder, "data")]
    mkdirSync(data, { recursive: true })
    const secretly = { mode: 0o600 }
    if (!existsSync(secretIn(place))) writeFileSync(secretIn(place), crypto.randomUUID(), secretly)
    const known = await devices()
    writeFileSync(
      join(place.folder, "passwords"),
      passwordFile({ name: shop, secret: secretOf(place) }, known),
      secretly
    )
    writeFileSync(join(place.folder, "access"), accessFile({ name: shop }, known), secretly)
    writeFileSync(config, configuration(place, data))
    return { command: [program.command, "-c", config], environment: program.environment }
  },
  isReady: async (place) => {
    const { connect } = await import("@merkato/infra/mqtt/MqttConnection")
    const broker = {
      host: "127.0.0.1",
      port: place.port("mqtt"),
      secure: false,
      username: shop,
      password: Redacted.make(secretOf(place))
    }
    const answer = await connect(broker, { clientId: "", keptSeconds: 0, receiveMaximum: 1 }, []).pipe(
      Effect.scoped,
      Effect.result,
      Effect.runPromise
    )
    if (Result.isFailure(answer) && /password|allow/.test(answer.failure.reason)) {
      throw new Refused(`At 127.0.0.1:${broker.port} answers another MQTT broker: ${answer.failure.reason}.`)
    }
    return Result.isSuccess(answer)
  },
  settings: (place) => ({ MQTT_URL: `mqtt://${shop}:${secretOf(place)}@127.0.0.1:${place.port("mqtt")}` })
}
