import { join } from "node:path"
import { Config, Context, Effect, Layer, Option, Schema } from "effect"
import { CircuitBreaker, RateLimiter } from "effect/persistence"
import { milliseconds } from "../config/Milliseconds.ts"
import type { CircuitStanding } from "./Breaker.ts"
import * as Guard from "./Guard.ts"
import { type LimitName, Limits, limitNames, type PolicyOptions } from "./Limits.ts"
import { isOperation, type OperationName, operationNames, operations } from "./operations.ts"
import type { PolicyError } from "./PolicyError.ts"
import * as PolicyFile from "./PolicyFile.ts"
import type { Counts } from "./PolicyMetrics.ts"

/** One operation as it stands: for `GET /ops/policies`. */
export interface PolicyState {
  readonly operation: OperationName
  readonly about: string
  readonly usedBy: string
  /** Nobody calls it yet. */
  readonly later: boolean
  readonly limits: Limits
  /** Limits that an environment variable set. */
  readonly fromEnvironment: ReadonlyArray<LimitName>
  /** Limits that were configured at run time; those named in neither are the code's. */
  readonly configured: ReadonlyArray<LimitName>
  /** null: the operation has no breaker. */
  readonly breaker: CircuitStanding | null
  readonly inFlight: number
  readonly waiting: number
  /** Retries that may be made before the budget is spent. null: without a budget. */
  readonly retryTokens: number | null
  readonly counts: Counts
}

/** New limits cannot be: nothing has been changed. */
export class LimitsRefused extends Schema.TaggedError<LimitsRefused>()("LimitsRefused", { reason: Schema.String }) {
  override get message() {
    return this.reason
  }
}

/** Some limits of some operations; what is not there stays as it is written in the code. */
export type Overrides = { readonly [Name in OperationName]?: Readonly<Record<string, unknown>> }

/**
 * The policies of every guarded operation of a process: one circuit, one bulkhead, one budget for all who call it. In the
 * one order: deadline( rate limit( bulkhead( retry( breaker( attempt timeout( call )))))).
 */
export class Policies extends Context.Service<
  Policies,
  {
    /** Guards a call of the operation. `transient` says which errors are failures; all others are answers. */
    readonly guard: <E>(
      operation: OperationName,
      options: Guard.CallOptions<E>
    ) => <A, R>(call: Effect.Effect<A, E, R>) => Effect.Effect<A, E | PolicyError, R>
    /** The limits in force now. */
    readonly limits: (operation: OperationName) => Effect.Effect<Limits>
    readonly states: Effect.Effect<ReadonlyArray<PolicyState>>
    /**
     * Replaces what is configured, as a whole: `{"payment.soap": {"attempts": 3}}`; `{}` is back to the code's limits. Holds
     * from the next call on. What is refused changes nothing.
     */
    readonly change: (overrides: unknown) => Effect.Effect<void, LimitsRefused>
  }
>()("merkato/infra/Policies") {
  /** For tests: the code's limits, with these in their place, and no file. */
  static readonly layerWith = (overrides: Overrides = {}) => Layer.effect(Policies, make({}, overrides))

  /**
   * The limits of the code and the environment, and over them those of a JSON file that is read again whenever it changes:
   * `MERKATO_POLICIES`, or `policies.json` in the data folder.
   */
  static readonly layer = (dataDir: string) =>
    Layer.effect(
      Policies,
      Effect.gen(function* () {
        const policies = yield* make(yield* fromEnvironment, {})
        const file = yield* Config.String("MERKATO_POLICIES").pipe(Config.withDefault(join(dataDir, "policies.json")))
        yield* PolicyFile.follow(file, policies.change)
        return policies
      })
    )
}

/** `MERKATO_PAYMENT_TIMEOUT_MS`: how long one attempt at a payment gateway may take. */
const paymentTimeout = milliseconds("MERKATO_PAYMENT_TIMEOUT_MS").pipe(Config.option)

export const fromEnvironment: Effect.Effect<Overrides, Config.ConfigError> = Effect.map(paymentTimeout, (given) =>
  Option.match(given, {
    onNone: () => ({}),
    onSome: (attemptTimeoutMs) => ({ "payment.soap": { attemptTimeoutMs }, "payment.rest": { attemptTimeoutMs } })
  })
)

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** What is given takes the place of what is there; of a limit with parts, only the parts given (another kind of backoff is another). */
const merged = (there: unknown, given: unknown): unknown =>
  isRecord(there) && isRecord(given) && (given["kind"] === undefined || given["kind"] === there["kind"])
    ? Object.fromEntries(
        [...new Set([...Object.keys(there), ...Object.keys(given)])].map((key) => [
          key,
          key in given ? merged(there[key], given[key]) : there[key]
        ])
      )
    : given

const decodeLimits = Schema.decodeUnknownEffect(Limits, { onExcessProperty: "error", errors: "all" })

const declared: Readonly<Record<OperationName, PolicyOptions>> = operations

const defaultsOf = (operation: OperationName): Limits => {
  const { about: _about, usedBy: _usedBy, later: _later, ...limits } = declared[operation]
  return limits
}

/** The limits of every operation: the code's, then each of these in its turn. Refuses unknown operations and limits. */
const resolve = Effect.fnUntraced(function* (layers: ReadonlyArray<unknown>) {
  for (const layer of layers) {
    if (!isRecord(layer)) return yield* new LimitsRefused({ reason: "Expected an object of operations" })
    for (const name of Object.keys(layer)) {
      if (isOperation(name)) continue
      return yield* new LimitsRefused({
        reason: `There is no operation "${name}"; there are ${operationNames.join(", ")}`
      })
    }
  }
  const limits = new Map<OperationName, Limits>()
  for (const name of operationNames) {
    const given = layers
      .map((layer) => (isRecord(layer) ? layer[name] : undefined))
      .filter((part) => part !== undefined)
    const together = given.reduce(merged, defaultsOf(name))
    limits.set(
      name,
      yield* decodeLimits(together).pipe(
        Effect.mapError(({ message }) => new LimitsRefused({ reason: `${name}: ${message}` }))
      )
    )
  }
  return limits
})

/** `environment` cannot change while the process runs; `configured` can. */
export const make = Effect.fnUntraced(function* (environment: Overrides, configured: Overrides) {
  const stores = yield* Layer.build(
    Layer.merge(
      // One key an operation: nothing to forget.
      CircuitBreaker.layerStoreMemory({ idleTimeToLive: "36500 days" }),
      RateLimiter.layer.pipe(Layer.provide(RateLimiter.layerStoreMemory))
    )
  )
  let overrides: Readonly<Record<string, unknown>> = configured
  const initial = yield* resolve([environment, configured])
  const guards = new Map<OperationName, Effect.Success<ReturnType<typeof Guard.make>>>()
  for (const [name, limits] of initial) {
    guards.set(name, yield* Effect.provideContext(Guard.make(name, limits), stores))
  }
  // The operations are those of the code; each has been given its guard.
  const guardOf = (name: OperationName) => {
    const guard = guards.get(name)
    if (guard === undefined) throw new Error(`No guard for ${name}`)
    return guard
  }

  const limitsIn = (layer: unknown, name: OperationName): ReadonlyArray<LimitName> => {
    const given = isRecord(layer) ? layer[name] : undefined
    return isRecord(given) ? limitNames.filter((limit) => limit in given) : []
  }

  return Policies.of({
    guard: (operation, options) => guardOf(operation).guard(options),
    limits: (operation) => guardOf(operation).limits,
    states: Effect.forEach(operationNames, (operation) =>
      Effect.map(guardOf(operation).standing, (standing): PolicyState => {
        const { about, usedBy, later = false } = declared[operation]
        return {
          operation,
          about,
          usedBy,
          later,
          fromEnvironment: limitsIn(environment, operation).filter(
            (limit) => !limitsIn(overrides, operation).includes(limit)
          ),
          configured: limitsIn(overrides, operation),
          ...standing
        }
      })
    ),
    change: Effect.fnUntraced(function* (next) {
      const limits = yield* resolve([environment, next])
      if (!isRecord(next)) return
      overrides = next
      for (const [name, each] of limits) yield* guardOf(name).change(each)
    })
  })
})
