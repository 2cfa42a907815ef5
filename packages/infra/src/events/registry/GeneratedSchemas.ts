import { Effect, Layer, Option } from "effect"
import { registeredSchema } from "@merkato/domain/kernel/EventSchema"
import { incompatibilities } from "@merkato/domain/kernel/Incompatibilities"
import { type Registered, SchemaRefused, SchemaRegistry } from "./SchemaRegistry.ts"

const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b)

/**
 * The registry without a server: the schemas that were generated from these events, and what is registered in this process.
 * What came before is compared when the code is built (ADR 23), by the same rules.
 */
export const layer = (definitions: ReadonlyArray<Parameters<typeof registeredSchema>[0]>) =>
  Layer.sync(SchemaRegistry, () => {
    const subjects = new Map<string, Registered>(
      definitions.map((definition) => [definition.type, { version: 1, schema: registeredSchema(definition) }])
    )
    const check: SchemaRegistry["Service"]["check"] = (subject, schema) => {
      const before = subjects.get(subject)
      const [reason] = before === undefined ? [] : incompatibilities(before.schema, schema)
      return reason === undefined ? Effect.void : Effect.fail(new SchemaRefused({ subject, reason }))
    }
    return SchemaRegistry.of({
      check,
      register: (subject, schema) =>
        Effect.map(check(subject, schema), () => {
          const before = subjects.get(subject)
          if (!same(before?.schema, schema)) subjects.set(subject, { version: (before?.version ?? 0) + 1, schema })
        }),
      latest: (subject) => Effect.sync(() => Option.fromUndefinedOr(subjects.get(subject)))
    })
  })
