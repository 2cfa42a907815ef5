// What every side of the SchemaRegistry port keeps. Subjects are new in every test, so the registry may be an old one.
import { describe, expect, test } from "bun:test"
import { Effect, Layer, Logger, Option, Schema } from "effect"
import { allEvents } from "@merkato/domain/events"
import { registeredSchema } from "@merkato/domain/kernel/EventSchema"
import { registerAll, SchemaRefused, SchemaRegistry } from "../src/events/registry/SchemaRegistry.ts"
import { unique } from "./EventBus.contract.ts"

const fields = {
  thingId: Schema.String,
  amount: Schema.Int,
  note: Schema.optionalKey(Schema.String),
  lines: Schema.Array(Schema.Struct({ qty: Schema.Int }))
}
const schemaOf = (payload: Schema.Top, type = "ecommerce.test.thing.happened.v1") => registeredSchema({ type, payload })
const first = schemaOf(Schema.Struct(fields))

const breaking: ReadonlyArray<readonly [string, Schema.Top]> = [
  ["a field that has to be there", Schema.Struct({ ...fields, colour: Schema.String })],
  ["a field of another type", Schema.Struct({ ...fields, amount: Schema.String })],
  ["a field that is gone", Schema.Struct({ thingId: fields.thingId, note: fields.note, lines: fields.lines })],
  [
    "a field deep inside that has to be there",
    Schema.Struct({ ...fields, lines: Schema.Array(Schema.Struct({ qty: Schema.Int, price: Schema.Finite })) })
  ]
]

/** Runs the contract on one side of the port. */
export const schemaRegistryContract = <E>(name: string, layer: Layer.Layer<SchemaRegistry, E>): void => {
  const run = <A>(
    body: (registry: SchemaRegistry["Service"], subject: string) => Effect.Effect<A, unknown, SchemaRegistry>
  ) =>
    Effect.flatMap(SchemaRegistry, (registry) => body(registry, unique("ecommerce.test.v1"))).pipe(
      Effect.provide(Layer.merge(layer, Logger.layer([]))),
      Effect.runPromise
    )

  describe(`a registry of schemas ${name}`, () => {
    test("knows nothing of a subject before its first schema", () =>
      run((registry, subject) =>
        Effect.gen(function* () {
          expect(yield* registry.latest(subject)).toEqual(Option.none())
          yield* registry.check(subject, first)
          expect(yield* registry.latest(subject)).toEqual(Option.none())
        })
      ))

    test("gives back the newest schema as it got it, and the same one again is no new version", () =>
      run((registry, subject) =>
        Effect.gen(function* () {
          yield* registry.register(subject, first)
          yield* registry.register(subject, first)
          expect(yield* registry.latest(subject)).toEqual(Option.some({ version: 1, schema: first }))
          const wider = schemaOf(Schema.Struct({ ...fields, colour: Schema.optionalKey(Schema.String) }))
          yield* registry.check(subject, wider)
          yield* registry.register(subject, wider)
          expect(yield* registry.latest(subject)).toEqual(Option.some({ version: 2, schema: wider }))
        })
      ))

    test("refuses what might not read what was written before, and keeps what it has", () =>
      run((registry, subject) =>
        Effect.gen(function* () {
          yield* registry.register(subject, first)
          for (const [what, payload] of breaking) {
            for (const ask of [registry.check, registry.register]) {
              const refused = yield* Effect.flip(ask(subject, schemaOf(payload)))
              expect([what, refused]).toEqual([what, expect.any(SchemaRefused)])
              expect(refused.message).toStartWith(`The schema registry refuses the schema of ${subject}: `)
            }
          }
          expect(yield* registry.latest(subject)).toEqual(Option.some({ version: 1, schema: first }))
        })
      ))

    test("takes the schemas of all events of the shop, twice", () =>
      run((registry) =>
        Effect.gen(function* () {
          yield* registerAll(allEvents)
          yield* registerAll(allEvents)
          for (const definition of allEvents) {
            const schema = registeredSchema(definition)
            expect(yield* registry.latest(definition.type)).toEqual(Option.some({ version: 1, schema }))
          }
        })
      ))

    test("registers none when one of them is refused", () =>
      run((registry, subject) =>
        Effect.gen(function* () {
          const [good, bad] = [`${subject}.good`, `${subject}.bad`]
          yield* registry.register(bad, first)
          const refused = yield* Effect.flip(
            registerAll([
              { type: good, payload: Schema.Struct(fields) },
              { type: bad, payload: Schema.Struct({ ...fields, colour: Schema.String }) }
            ])
          )
          expect(refused).toMatchObject({ _tag: "SchemaRefused", subject: bad })
          expect(yield* registry.latest(good)).toEqual(Option.none())
        })
      ))
  })
}
