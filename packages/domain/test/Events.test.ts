import { describe, expect, test } from "bun:test"
import { Arbitrary, DateTime, Effect, Equal, Exit, Schema } from "effect"
import { define, type EventDefinition, Topic } from "../src/kernel/Event.ts"
import { Minor } from "../src/kernel/Money.ts"
import { definitions, exportedDefinitions, modules } from "./modules.ts"

/** The event names that others rely on (contracts: events). */
const promised = [
  "ecommerce.order.order.created.v1",
  "ecommerce.order.order.paid.v1",
  "ecommerce.order.order.canceled.v1",
  "ecommerce.order.order.fulfilled.v1",
  "ecommerce.inventory.stock.adjusted.v1",
  "ecommerce.product.product.updated.v1",
  "ecommerce.pricing.flash_sale.started.v1",
  "ecommerce.webhook.delivery.failed.v1"
]

const overTheWire = (payload: unknown): unknown => JSON.parse(JSON.stringify(payload))

/** Whether any payload is the same again after it was stored, sent as JSON, and read. */
const holds = async (
  definition: EventDefinition<unknown>,
  same: (payload: unknown, sent: unknown) => Effect.Effect<boolean, Schema.SchemaError>
) =>
  Arbitrary.formatCheckFailure(
    await Effect.runPromise(
      Arbitrary.checkEffect(
        Arbitrary.schema(definition.payload),
        (payload) => same(payload, overTheWire(definition.of("A-1", 1, payload).payload)),
        // Optional fields appear only where `size` exceeds the number of required ones.
        { runs: 60, size: 24 }
      )
    )
  )

describe("the events of the domain", () => {
  test("are found: every context's list, and everything in it", () => {
    const files = modules.filter(({ path }) => path.endsWith("Events.ts"))
    expect(files.length).toBeGreaterThanOrEqual(6)
    for (const { path, exports } of files) {
      expect([path, Array.isArray(exports["events"]) && exports["events"].length > 0]).toEqual([path, true])
    }
    // What a context exports one by one stands in its list too, and the other way round.
    expect(new Set(definitions)).toEqual(new Set(exportedDefinitions))
  })

  test("have the names that others rely on", () => {
    expect(definitions.map(({ type }) => type)).toEqual(expect.arrayContaining(promised))
  })

  test("are each named ecommerce.<context>.<subject>.<what happened>.v<n>, and no two alike", () => {
    for (const { type } of definitions) expect(type).toMatch(/^ecommerce(?:\.[a-z]+(?:_[a-z]+)*){3}\.v[1-9]\d*$/)
    expect(new Set(definitions.map(({ type }) => type)).size).toBe(definitions.length)
  })

  test("go to topics that exist", () => {
    for (const { topic } of definitions) expect(Topic.literals).toContain(topic)
  })
})

describe("an event as it is stored", () => {
  const Ripened = define(
    "ecommerce.test.fruit.ripened.v1",
    "catalogue.events",
    Schema.Struct({ at: Schema.DateTimeUtcFromString, note: Schema.optionalKey(Schema.String) })
  )
  const at = DateTime.makeUnsafe("2025-06-01T12:00:00.000Z")

  test("carries its payload as it goes over the wire", () => {
    expect(Ripened.of("A-1", 1, { at }).payload).toEqual({ at: "2025-06-01T12:00:00.000Z" })
    expect(Effect.runSync(Ripened.decode({ at: "2025-06-01T12:00:00.000Z" }))).toEqual({ at })
  })

  test("is not made from a payload that could not be read again", () => {
    const invalid = Arbitrary.schema(Schema.Finite.check(Schema.makeFilter((amount) => !Schema.is(Minor)(amount))))
    const Priced = define("ecommerce.test.fruit.priced.v1", "catalogue.events", Schema.Struct({ amount: Minor }))
    const refused = Arbitrary.checkEffect(invalid, (amount) =>
      Effect.isFailure(Effect.try(() => Priced.of("A-1", 1, { amount }))).pipe(
        Effect.zipWith(Effect.isFailure(Priced.decode({ amount })), (written, read) => written && read)
      )
    )
    expect(Arbitrary.formatCheckFailure(Effect.runSync(refused))).toBeUndefined()
  })
})

for (const definition of definitions) {
  describe(definition.type, () => {
    test("any payload comes back the same from storage and the wire", async () => {
      const same = (payload: unknown, sent: unknown) =>
        Effect.map(definition.decode(sent), (read) => Equal.equals(read, payload))
      expect(await holds(definition, same)).toBeUndefined()
    })

    test("what was read is written the same again", async () => {
      const same = (_: unknown, sent: unknown) =>
        Effect.map(definition.decode(sent), (read) =>
          Equal.equals(overTheWire(definition.of("A-1", 1, read).payload), sent)
        )
      expect(await holds(definition, same)).toBeUndefined()
    })

    test("a field that a later version added is ignored", async () => {
      const same = (payload: unknown, sent: unknown) =>
        Effect.map(
          definition.decode(typeof sent === "object" ? { ...sent, addedLater: { any: ["thing"] } } : sent),
          (read) => Equal.equals(read, payload)
        )
      expect(await holds(definition, same)).toBeUndefined()
    })

    test("is stored under its type, its aggregate and its version", async () => {
      const [payload] = await Effect.runPromise(
        Arbitrary.sampleEffect(Arbitrary.schema(definition.payload), { count: 1, seed: definition.type })
      )
      const { payload: _, ...event } = definition.of("A-1", 7, payload)
      expect(event).toEqual({ eventType: definition.type, aggregateId: "A-1", version: 7 })
    })

    test("what is no payload is refused as a typed error", () => {
      for (const payload of [null, undefined, "text", 1, [], {}]) {
        const exit = Effect.runSyncExit(Effect.flip(definition.decode(payload)))
        expect(Exit.isSuccess(exit) && Schema.isSchemaError(exit.value)).toBe(true)
      }
    })
  })
}
