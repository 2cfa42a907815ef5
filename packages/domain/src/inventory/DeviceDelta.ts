import { Schema } from "effect"
import { Sku } from "../catalogue/Product.ts"
import { Id, type ProductId } from "../kernel/Ids.ts"
import { AdjustmentReason, Delta, maxUnits } from "./Stock.ts"

/** How a device names a message of its own: 1 to 128 printable ASCII characters, without blanks. */
export const MessageId = Schema.String.check(Schema.isPattern(/^[\x21-\x7e]{1,128}$/))

/** What a device says on `iot/inventory/{sku}/delta` (contracts: MQTT). */
export const DeviceMessage = Schema.Struct({
  delta: Delta,
  reason: AdjustmentReason,
  /** Unique per device: with it the delta counts once, however often it comes; without it, each time that it comes. */
  messageId: Schema.optionalKey(MessageId),
  /** Whose message ids they are, where several devices look at one shelf; a broker does not say who published. */
  deviceId: Schema.optionalKey(Id)
})

/** A change of a product's stock that a device has seen. */
export const DeviceDelta = Schema.Struct({ sku: Sku, ...DeviceMessage.fields })
export type DeviceDelta = typeof DeviceDelta.Type

export const RefusalCode = Schema.Literals([
  "malformed_message",
  "unknown_sku",
  "stock_would_be_negative",
  "stock_would_overflow",
  "message_id_reused"
])

/** A device's message changes nothing: it goes to the dead letters, where people look at what the shelf really holds. */
export class DeltaRefused extends Schema.TaggedError<DeltaRefused>()("DeltaRefused", {
  code: RefusalCode,
  reason: Schema.String
}) {
  override get message() {
    return `${this.code}: ${this.reason}`
  }
}

/** What is known of a product's shelf while deltas are applied to it. */
export interface Shelf {
  readonly productId: ProductId
  readonly onHand: number
  readonly reserved: number
  readonly version: number
}

/** A delta that counts, and the shelf after it. */
export interface Applied {
  readonly _tag: "Applied"
  readonly delta: DeviceDelta
  readonly shelf: Shelf
}

export type Outcome = Applied | { readonly _tag: "Duplicate" } | DeltaRefused

/** What two messages have in common that are the same one. */
export const identity = (sku: string, deviceId: string, messageId: string): string => `${deviceId} ${sku} ${messageId}`

/** The identity of a message; undefined when the device does not tell. */
export const identityOf = ({ deviceId, sku, messageId }: DeviceDelta): string | undefined =>
  messageId === undefined ? undefined : identity(sku, deviceId ?? "", messageId)

/**
 * Applies deltas in their order: what becomes of each. `shelves` are those of the SKUs that exist; `known` are the deltas
 * that were applied before, by identity. A shelf never holds less than is reserved of it.
 */
export const applyDeltas = (
  shelves: ReadonlyMap<string, Shelf>,
  known: ReadonlyMap<string, number>,
  deltas: ReadonlyArray<DeviceDelta>
): ReadonlyArray<Outcome> => {
  const now = new Map(shelves)
  const seen = new Map(known)
  return deltas.map((delta): Outcome => {
    const before = now.get(delta.sku)
    if (before === undefined) {
      return new DeltaRefused({ code: "unknown_sku", reason: `No product has the SKU ${delta.sku}` })
    }
    const identity = identityOf(delta)
    const earlier = identity === undefined ? undefined : seen.get(identity)
    if (earlier !== undefined) {
      if (earlier === delta.delta) return { _tag: "Duplicate" }
      const reason = `Message ${delta.messageId} came before with the delta ${earlier}, and now with ${delta.delta}`
      return new DeltaRefused({ code: "message_id_reused", reason })
    }
    const shelf = { ...before, onHand: before.onHand + delta.delta, version: before.version + 1 }
    if (shelf.onHand < shelf.reserved) {
      const free = before.onHand - before.reserved
      const reason = `The delta ${delta.delta} takes more than the ${free} units that are free`
      return new DeltaRefused({ code: "stock_would_be_negative", reason })
    }
    if (shelf.onHand > maxUnits) {
      const reason = `A warehouse holds at most ${maxUnits} units of a product`
      return new DeltaRefused({ code: "stock_would_overflow", reason })
    }
    now.set(delta.sku, shelf)
    if (identity !== undefined) seen.set(identity, delta.delta)
    return { _tag: "Applied", delta, shelf }
  })
}
