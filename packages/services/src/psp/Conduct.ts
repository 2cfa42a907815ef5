import { Context, Effect, Layer, Random, Schema } from "effect"
import type { GatewayName } from "./Psp.ts"

export const Operation = Schema.Literals(["process", "authorise", "capture", "void", "refund", "find"])
export type Operation = typeof Operation.Type

/**
 * How a gateway treats a request. ok: as it should. down: says that it did nothing, and did not. slow: answers after
 * `delayMs`; it goes on with the work when the caller has gone. silent: does nothing and never answers. mute: does the
 * work and never answers. lost: does the work, then drops the connection. twice: does the work twice at once. garbage,
 * misshapen, truncated, foreign: does the work, then answers with what is no message, a message of another kind, the
 * first half of the answer, or the answer to somebody else.
 */
export const Mode = Schema.Literals([
  "ok",
  "down",
  "slow",
  "silent",
  "mute",
  "lost",
  "twice",
  "garbage",
  "misshapen",
  "truncated",
  "foreign"
])
export type Mode = typeof Mode.Type

const Share = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 }))

export const Conduct = Schema.Struct({
  mode: Mode,
  /** Of `slow`; a second unless told. */
  delayMs: Schema.optional(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 600_000 }))),
  /** How many requests it is for; then all is well again. Without it: until told otherwise. */
  forNext: Schema.optional(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000 }))),
  /** The share of requests it is for, 0 to 1; all unless told. */
  rate: Schema.optional(Share),
  /** The share of requests of some operations, where it is another one. */
  rates: Schema.optional(Schema.Record(Operation, Schema.optional(Share))),
  /** The operations it is for; all unless told. */
  operations: Schema.optional(Schema.Array(Operation))
})
export type Conduct = typeof Conduct.Type

const well: Conduct = { mode: "ok" }

/** How the test gateways behave at the moment, as told by their control door. */
export class Conducts extends Context.Service<
  Conducts,
  {
    readonly get: (gateway: GatewayName) => Effect.Effect<Conduct>
    readonly set: (gateway: GatewayName, conduct: Conduct) => Effect.Effect<void>
    /** What to do with the request that is here now; it counts. */
    readonly next: (gateway: GatewayName, operation: Operation) => Effect.Effect<Conduct>
  }
>()("merkato/psp/Conducts") {
  static readonly layer = Layer.sync(Conducts, () => {
    const told = new Map<GatewayName, Conduct>()
    const get = (gateway: GatewayName) => told.get(gateway) ?? well
    return Conducts.of({
      get: (gateway) => Effect.sync(() => get(gateway)),
      set: (gateway, conduct) => Effect.sync(() => void told.set(gateway, conduct)),
      next: Effect.fnUntraced(function* (gateway: GatewayName, operation: Operation) {
        const chance = yield* Random.next
        const conduct = get(gateway)
        const { forNext, operations, rate = 1, rates } = conduct
        if (operations !== undefined && !operations.includes(operation)) return well
        if (chance >= (rates?.[operation] ?? rate)) return well
        if (forNext !== undefined) told.set(gateway, forNext === 1 ? well : { ...conduct, forNext: forNext - 1 })
        return conduct
      })
    })
  })
}
