// The schema of every event and version stands in test/schemas as a registry would have it: `<eventType>.json`, and for
// each later version `<eventType>@1.1.json`, …. A change that older events or their readers could not live with fails.
//
//   MERKATO_UPDATE_GOLDEN=1 bun test packages/domain/test/EventSchemas.test.ts
//
// writes what is missing, unless it is incompatible, and never changes a file that is there.
import { describe, expect, test } from "bun:test"
import { Arbitrary, Effect, Schema } from "effect"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { allEvents } from "../src/events.ts"
import { type JsonSchema, readSchema, writtenSchema } from "../src/kernel/EventSchema.ts"
import { incompatibilities } from "../src/kernel/Incompatibilities.ts"
import { definitions } from "./modules.ts"

const golden = join(import.meta.dir, "schemas")

interface Definition {
  readonly type: string
  readonly payload: Schema.Top
}

const nameOf = (type: string, minor: number) => (minor === 0 ? `${type}.json` : `${type}@1.${minor}.json`)

const filesOf = (folder: string, type: string): ReadonlyArray<string> => {
  const names: Array<string> = []
  while (existsSync(join(folder, nameOf(type, names.length)))) names.push(nameOf(type, names.length))
  return names
}

const read = (folder: string, name: string): JsonSchema => JSON.parse(readFileSync(join(folder, name), "utf8"))

/** What stands between an event as it is now and what was kept of it; nothing when all is well. */
const findings = (folder: string, definition: Definition): ReadonlyArray<string> => {
  const now = writtenSchema(definition)
  const names = filesOf(folder, definition.type)
  const next = nameOf(definition.type, names.length)
  const broken = names.flatMap((name) =>
    incompatibilities(read(folder, name), now).map((sentence) => `incompatible with ${name}: ${sentence}`)
  )
  const latest = names.at(-1)
  if (broken.length > 0) return broken
  return latest !== undefined && Bun.deepEquals(read(folder, latest), now, true) ? [] : [`${next} is missing`]
}

const writeMissing = (folder: string, definition: Definition): void => {
  const next = nameOf(definition.type, filesOf(folder, definition.type).length)
  if (findings(folder, definition)[0] !== `${next} is missing`) return
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, next), `${JSON.stringify(writtenSchema(definition), null, 2)}\n`, { flag: "wx" })
}

if (process.env["MERKATO_UPDATE_GOLDEN"] === "1") for (const definition of definitions) writeMissing(golden, definition)

describe("the schemas of events", () => {
  for (const definition of definitions) {
    test(`${definition.type} is compatible with all its versions, and the latest is kept`, () => {
      expect(findings(golden, definition)).toEqual([])
    })
  }

  test("are kept for events that exist: none was renamed or taken away", () => {
    expect(readdirSync(golden).toSorted()).toEqual(definitions.flatMap(({ type }) => filesOf(golden, type)).toSorted())
  })

  test("are those of all events, wherever they are listed", () => {
    const listed: ReadonlyArray<Definition> = allEvents
    expect(new Set(listed)).toEqual(new Set<Definition>(definitions))
  })

  test("leave room in what readers take for what later versions add, and none in what is written", () => {
    const objects = (schema: unknown): ReadonlyArray<unknown> => {
      if (typeof schema !== "object" || schema === null) return []
      const own = "properties" in schema && "additionalProperties" in schema ? [schema.additionalProperties] : []
      return [...own, ...Object.values(schema).flatMap(objects)]
    }
    for (const definition of definitions) {
      expect(new Set(objects(readSchema(definition)))).toEqual(new Set([true]))
      expect(new Set(objects(writtenSchema(definition)))).toEqual(new Set([false]))
    }
  })
})

const type = "ecommerce.test.thing.happened.v1"
const Item = Schema.Struct({ qty: Schema.Int })
const fields = {
  thingId: Schema.String,
  amount: Schema.Int,
  kind: Schema.Literals(["big", "small"]),
  note: Schema.optionalKey(Schema.String),
  items: Schema.Array(Item)
}
const thing = (payload: Schema.Top): Definition => ({ type, payload })
const first = Schema.Struct(fields)
const found = (before: Schema.Top, after: Schema.Top) =>
  incompatibilities(writtenSchema(thing(before)), writtenSchema(thing(after)))
const withoutField = <K extends keyof typeof fields>(name: K) => {
  const { [name]: _, ...rest } = fields
  return Schema.Struct(rest)
}

describe("an incompatible change is found, and told in a sentence", () => {
  const cases: ReadonlyArray<readonly [string, Schema.Top, ReadonlyArray<string>]> = [
    [
      "a required field that was added",
      Schema.Struct({ ...fields, colour: Schema.String }),
      ["colour: was added and has to be there, and older events do not have it"]
    ],
    ["a required field that was taken away", withoutField("amount"), ["amount: was taken away, and readers need it"]],
    ["an optional field that was taken away", withoutField("note"), ["note: was taken away, and older events have it"]],
    [
      "a field with another type",
      Schema.Struct({ ...fields, thingId: Schema.Finite }),
      ["thingId: was string and is number"]
    ],
    [
      "an optional field that has to be there now",
      Schema.Struct({ ...fields, note: Schema.String }),
      ["note: has to be there now, and older events may not have it"]
    ],
    [
      "a required field that need not be there any more",
      Schema.Struct({ ...fields, amount: Schema.optionalKey(Schema.Int) }),
      ["amount: need not be there any more, and readers need it"]
    ],
    [
      "a value that may no longer be",
      Schema.Struct({ ...fields, kind: Schema.Literals(["big"]) }),
      ['kind: may no longer be "small"']
    ],
    [
      "a text that has to be one of a few now",
      Schema.Struct({ ...fields, thingId: Schema.Literals(["T1"]) }),
      ["thingId: may no longer be any string"]
    ],
    [
      "a narrower range",
      Schema.Struct({ ...fields, amount: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 9 })) }),
      ["amount: may no longer be less than 0", "amount: may no longer be more than 9"]
    ],
    [
      "a whole number where any was",
      Schema.Struct({ ...fields, items: Schema.Array(Schema.Struct({ qty: Schema.String })) }),
      ["items[].qty: was integer and is string"]
    ],
    [
      "a required field deep inside",
      Schema.Struct({ ...fields, items: Schema.Array(Schema.Struct({ qty: Schema.Int, price: Schema.Finite })) }),
      ["items[].price: was added and has to be there, and older events do not have it"]
    ],
    [
      "a renamed field",
      Schema.Struct({ ...fields, items: Schema.Array(Schema.Struct({ quantity: Schema.Int })) }),
      [
        "items[].qty: was taken away, and readers need it",
        "items[].quantity: was added and has to be there, and older events do not have it"
      ]
    ]
  ]
  for (const [what, after, sentences] of cases) {
    test(what, () => {
      expect(found(first, after)).toEqual(sentences)
    })
  }

  test("one of several types that is gone", () => {
    const either = Schema.Struct({ value: Schema.Union([Schema.String, Schema.Finite]) })
    expect(found(either, Schema.Struct({ value: Schema.String }))).toEqual([
      "value: what it may be (number 2) is not among what it may be now"
    ])
  })

  test("in what a reference leads to", () => {
    const referring = (type: string): JsonSchema => ({
      type: "object",
      properties: { of: { $ref: "#/$defs/Of" } },
      required: ["of"],
      additionalProperties: false,
      $defs: { Of: { type } }
    })
    expect(incompatibilities(referring("string"), referring("string"))).toEqual([])
    expect(incompatibilities(referring("string"), referring("number"))).toEqual(["of: was string and is number"])
  })

  test("a keyword that cannot be compared", () => {
    const strange = { ...writtenSchema(thing(first)), not: {} }
    expect(incompatibilities(writtenSchema(thing(first)), strange)).toEqual(["payload: not cannot be compared"])
    const nowhere: JsonSchema = { $ref: "#/$defs/Nowhere" }
    expect(incompatibilities(nowhere, nowhere)).toEqual(["payload: $ref cannot be compared"])
  })
})

describe("a compatible change is let through, and its reader reads whatever was written before", () => {
  const cases: ReadonlyArray<readonly [string, Schema.Codec<unknown, unknown>]> = [
    ["none", first],
    ["an optional field that was added", Schema.Struct({ ...fields, colour: Schema.optionalKey(Schema.String) })],
    ["a value that may be as well", Schema.Struct({ ...fields, kind: Schema.Literals(["big", "small", "tiny"]) })],
    ["any number where whole ones were", Schema.Struct({ ...fields, amount: Schema.Finite })],
    [
      "another type beside the one it was",
      Schema.Struct({ ...fields, thingId: Schema.Union([Schema.Finite, Schema.String]) })
    ],
    [
      "an optional field deep inside",
      Schema.Struct({
        ...fields,
        items: Schema.Array(Schema.Struct({ qty: Schema.Int, price: Schema.optionalKey(Schema.Finite) }))
      })
    ]
  ]
  for (const [what, after] of cases) {
    test(what, () => {
      expect(found(first, after)).toEqual([])
      const written = Effect.runSync(
        Arbitrary.sampleEffect(Arbitrary.schema(first), { count: 50, size: 24, seed: what })
      )
      const decode = Schema.decodeUnknownSync(after)
      for (const payload of written) expect(() => decode(JSON.parse(JSON.stringify(payload)))).not.toThrow()
    })
  }
})

describe("what is kept", () => {
  const withFolder = (use: (folder: string) => void) => {
    const folder = mkdtempSync(join(tmpdir(), "merkato-schemas-"))
    try {
      use(folder)
    } finally {
      rmSync(folder, { recursive: true })
    }
  }

  test("grows by a file for each compatible version, and by none for one that is not", () => {
    withFolder((folder) => {
      expect(findings(folder, thing(first))).toEqual([`${type}.json is missing`])
      writeMissing(folder, thing(first))
      expect(findings(folder, thing(first))).toEqual([])

      const added = thing(Schema.Struct({ ...fields, colour: Schema.optionalKey(Schema.String) }))
      expect(findings(folder, added)).toEqual([`${type}@1.1.json is missing`])
      writeMissing(folder, added)
      expect(findings(folder, added)).toEqual([])

      const wrong = thing(Schema.Struct({ ...fields, colour: Schema.optionalKey(Schema.Finite) }))
      const sentence = `incompatible with ${type}@1.1.json: colour: was string and is number`
      expect(findings(folder, wrong)).toEqual([sentence])
      writeMissing(folder, wrong)
      expect(readdirSync(folder).toSorted()).toEqual([`${type}.json`, `${type}@1.1.json`])
    })
  })
})
