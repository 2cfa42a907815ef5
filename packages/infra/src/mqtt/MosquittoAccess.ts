// Who may do what at a Mosquitto: its password file and its access control list, from a list of devices.
import { pbkdf2Sync, randomBytes } from "node:crypto"
import { Schema } from "effect"
import { Sku } from "@merkato/domain/catalogue/Product"
import { Id } from "@merkato/domain/kernel/Ids"

/** A device that may publish what it sees of its shelves. */
export const Device = Schema.Struct({
  deviceId: Id,
  /** Printable ASCII, 16 to 200 characters, of which Mosquitto keeps a hash. */
  secret: Schema.String.check(Schema.isPattern(/^[\x20-\x7e]{16,200}$/)),
  skus: Schema.Array(Sku)
})
export type Device = typeof Device.Type

/** A list of devices, as JSON. */
export const decodeDevices = Schema.decodeUnknownEffect(Schema.fromJsonString(Schema.Array(Device)))

/** Rounds of PBKDF2: the secrets are long and made by a machine, so that a few are enough. */
const rounds = 101

/** A line of the password file: `user:$7$rounds$salt$hash`, PBKDF2 with SHA-512 (mosquitto_passwd, Mosquitto 2.0). */
const passwordLine = (name: string, secret: string): string => {
  const salt = randomBytes(12)
  const hash = pbkdf2Sync(secret, salt, rounds, 64, "sha512")
  return `${name}:$7$${rounds}$${salt.toString("base64")}$${hash.toString("base64")}`
}

/** The shop itself, to the broker. */
interface Shop {
  readonly name: string
  readonly secret: string
}

/** Secrets are in it as hashes only. */
export const passwordFile = (shop: Shop, devices: ReadonlyArray<Device>): string =>
  [shop, ...devices.map(({ deviceId, secret }) => ({ name: deviceId, secret }))]
    .map(({ name, secret }) => `${passwordLine(name, secret)}\n`)
    .join("")

/**
 * The shop hears all deltas and tells of those that it refused. A device publishes to its own SKUs alone, and hears what was
 * refused of them. Whoever is not named may do nothing.
 */
export const accessFile = ({ name }: Pick<Shop, "name">, devices: ReadonlyArray<Device>): string =>
  [
    `user ${name}\ntopic read iot/inventory/+/delta\ntopic write iot/inventory/+/delta/dlq\n`,
    ...devices.map(({ deviceId, skus }) =>
      [
        `user ${deviceId}`,
        ...skus.map((sku) => `topic write iot/inventory/${sku}/delta\ntopic read iot/inventory/${sku}/delta/dlq`),
        ""
      ].join("\n")
    )
  ].join("\n")
