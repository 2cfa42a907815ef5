import { Context, Effect, Schema } from "effect"
import type * as Option from "effect/Option"
import type { JsonSchema } from "@merkato/domain/kernel/EventSchema"
import { registeredSchema } from "@merkato/domain/kernel/EventSchema"

/** The registry cannot be asked now, or answers what makes no sense. */
export class RegistryUnavailable extends Schema.TaggedError<RegistryUnavailable>()("RegistryUnavailable", {
  reason: Schema.String
}) {
  override get message() {
    return `The schema registry cannot be asked: ${this.reason}`
  }
}

/** The schema may not follow the one before it: data of that one might not be read by it (BACKWARD). */
export class SchemaRefused extends Schema.TaggedError<SchemaRefused>()("SchemaRefused", {
  subject: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `The schema registry refuses the schema of ${this.subject}: ${this.reason}`
  }
}

export interface Registered {
  /** From 1, within the subject. */
  readonly version: number
  readonly schema: JsonSchema
}

/**
 * Where the schemas of events are kept for who did not write them, and where one that breaks its readers is refused. The
 * subject is the event type. One contract test runs against each side (in memory here, Confluent's API elsewhere).
 */
export class SchemaRegistry extends Context.Service<
  SchemaRegistry,
  {
    /** Makes it the newest version of its subject, unless it is. */
    readonly register: (subject: string, schema: JsonSchema) => Effect.Effect<void, RegistryUnavailable | SchemaRefused>
    /** Whether `register` would take it. */
    readonly check: (subject: string, schema: JsonSchema) => Effect.Effect<void, RegistryUnavailable | SchemaRefused>
    readonly latest: (subject: string) => Effect.Effect<Option.Option<Registered>, RegistryUnavailable>
  }
>()("merkato/infra/SchemaRegistry") {}

type Definitions = ReadonlyArray<Parameters<typeof registeredSchema>[0]>

/** Does the same with the schemas of all these events, a few at a time. */
const each = (
  definitions: Definitions,
  what: (subject: string, schema: JsonSchema) => Effect.Effect<void, RegistryUnavailable | SchemaRefused>
) =>
  Effect.forEach(definitions, (definition) => what(definition.type, registeredSchema(definition)), {
    concurrency: 4,
    discard: true
  })

/** All are taken, or the first one that is not says so before any of them is registered. */
export const registerAll = Effect.fn("SchemaRegistry.registerAll")(function* (definitions: Definitions) {
  const registry = yield* SchemaRegistry
  yield* each(definitions, registry.check)
  yield* each(definitions, registry.register)
})

export const checkAll = Effect.fn("SchemaRegistry.checkAll")(function* (definitions: Definitions) {
  yield* each(definitions, (yield* SchemaRegistry).check)
})
