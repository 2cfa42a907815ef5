// One file per event type and schema version keeps what was once on the wire. Events evolve additively only: a payload
// that an older version wrote must still be read, and be written the same again. `golden/<eventType>.json` is the first
// version; what a later one adds is kept in `golden/<eventType>@1.1.json`, `@1.2.json`, ….
//
//   MERKATO_UPDATE_GOLDEN=1 bun test packages/domain/test/Golden.test.ts
//
// writes the files that are missing, and never changes one that is there. Make the payload readable before committing.
import { describe, expect, test } from "bun:test"
import { Arbitrary, DateTime, Effect, Option, Schema } from "effect"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { define, type EventDefinition } from "../src/kernel/Event.ts"
import { Order } from "../src/orders/Order.ts"
import * as OrderEvents from "../src/orders/OrderEvents.ts"
import { Payment } from "../src/payments/Payment.ts"
import * as PaymentEvents from "../src/payments/PaymentEvents.ts"
import { definitions } from "./modules.ts"

const golden = join(import.meta.dir, "golden")

const nameOf = (type: string, minor: number) => (minor === 0 ? `${type}.json` : `${type}@1.${minor}.json`)

/** The golden files of an event type, oldest first. */
const filesOf = (folder: string, type: string): ReadonlyArray<string> => {
  const names: Array<string> = []
  while (existsSync(join(folder, nameOf(type, names.length)))) names.push(nameOf(type, names.length))
  return names
}

const read = (folder: string, name: string): unknown => JSON.parse(readFileSync(join(folder, name), "utf8"))

/** The paths of all fields in a payload: `items[].price`. */
const pathsOf = (payload: unknown, at = ""): ReadonlyArray<string> => {
  if (Array.isArray(payload)) return payload.flatMap((element) => pathsOf(element, `${at}[]`))
  if (typeof payload !== "object" || payload === null) return []
  return Object.entries(payload).flatMap(([key, value]) => {
    const path = at === "" ? key : `${at}.${key}`
    return [path, ...pathsOf(value, path)]
  })
}

/** Payloads of an event, the same ones each time, as they go over the wire. */
const samplesOf = <A>(definition: EventDefinition<A>): ReadonlyArray<unknown> =>
  Effect.runSync(
    // Optional fields appear only where `size` exceeds the number of required ones.
    Arbitrary.sampleEffect(Arbitrary.schema(definition.payload), { count: 30, size: 64, seed: definition.type })
  ).map((payload): unknown => JSON.parse(JSON.stringify(definition.of("A-1", 1, payload).payload)))

/** Fields that an event can have and that none of its golden files shows. */
const missingFields = <A>(folder: string, definition: EventDefinition<A>): ReadonlyArray<string> => {
  const shown = new Set(filesOf(folder, definition.type).flatMap((name) => pathsOf(read(folder, name))))
  return [...new Set(samplesOf(definition).flatMap((payload) => pathsOf(payload)))].filter((path) => !shown.has(path))
}

/** What is wrong with the golden files of an event; nothing when all is well. */
const findings = <A>(folder: string, definition: EventDefinition<A>): ReadonlyArray<string> => {
  const names = filesOf(folder, definition.type)
  if (names.length === 0) return [`${nameOf(definition.type, 0)} is missing`]
  const broken = names.flatMap((name) => {
    const payload = read(folder, name)
    const decoded = Effect.runSync(Effect.option(definition.decode(payload)))
    if (Option.isNone(decoded)) return [`${name} can no longer be read`]
    const again: unknown = JSON.parse(JSON.stringify(definition.of("A-1", 1, decoded.value).payload))
    return Bun.deepEquals(again, payload, true) ? [] : [`${name} is written differently now`]
  })
  const missing = missingFields(folder, definition)
  return missing.length === 0 ? broken : [...broken, `${missing.join(", ")} stands in no golden file`]
}

/** Writes a golden file for what has none yet. */
const writeMissing = <A>(folder: string, definition: EventDefinition<A>): void => {
  const names = filesOf(folder, definition.type)
  if (names.length > 0 && missingFields(folder, definition).length === 0) return
  // The shortest of those that show the most fields.
  const fields = (payload: unknown) => new Set(pathsOf(payload)).size
  const size = (payload: unknown) => JSON.stringify(payload).length
  const [fullest] = samplesOf(definition).toSorted((a, b) => fields(b) - fields(a) || size(a) - size(b))
  mkdirSync(folder, { recursive: true })
  // "wx" fails rather than overwrite.
  writeFileSync(join(folder, nameOf(definition.type, names.length)), `${JSON.stringify(fullest, null, 2)}\n`, {
    flag: "wx"
  })
}

if (process.env["MERKATO_UPDATE_GOLDEN"] === "1") for (const definition of definitions) writeMissing(golden, definition)

describe("golden payloads", () => {
  for (const definition of definitions) {
    test(`${definition.type} is read and written as it always was`, () => {
      expect(findings(golden, definition)).toEqual([])
    })
  }

  test("are kept for events that exist: none was renamed or taken away", () => {
    const known = definitions.flatMap(({ type }) => filesOf(golden, type))
    expect(readdirSync(golden).toSorted()).toEqual(known.toSorted())
  })
})

describe("histories of golden events", () => {
  const at = (version: number) => DateTime.makeUnsafe(Date.UTC(2025, 5, 1, 12, version))
  const stored = ({ type }: { readonly type: string }, index: number) => ({
    eventType: type,
    version: index + 1,
    occurredAt: at(index + 1),
    region: "us" as const,
    payload: read(golden, nameOf(type, 0))
  })
  const order = (...events: ReadonlyArray<{ readonly type: string }>): unknown => {
    const rebuilt = Effect.runSync(OrderEvents.rebuild(events.map(stored)))
    return rebuilt === undefined ? undefined : Schema.encodeSync(Order)(rebuilt)
  }
  const payment = (...events: ReadonlyArray<{ readonly type: string }>): unknown => {
    const rebuilt = Effect.runSync(PaymentEvents.rebuild(events.map(stored)))
    return rebuilt === undefined ? undefined : Schema.encodeSync(Payment)(rebuilt)
  }
  const { OrderCreated, OrderPaymentStarted, OrderPaymentFailed, OrderReservationLost } = OrderEvents
  const { OrderPaid, OrderHeld, OrderReleased, OrderCanceled, OrderFulfilled } = OrderEvents
  const { PaymentInitiated, PaymentAuthorised, PaymentCaptured, PaymentWasDeclined, PaymentWasVoided } = PaymentEvents

  const placed = {
    orderId: "ORDER-123",
    userId: "USER-9",
    region: "us",
    status: "PENDING",
    items: [
      { productId: "P1", qty: 2, priceMinor: 2_500 },
      { productId: "P2", qty: 1, priceMinor: 7_950 }
    ],
    itemsMinor: 12_950,
    discountMinor: 1_000,
    taxMinor: 300,
    shippingMinor: 700,
    totalMinor: 12_950,
    currency: "USD",
    reservationId: "RES-123",
    paymentAttemptId: null,
    reservationLost: false,
    reviewed: false,
    version: 1,
    createdAt: "2025-06-01T12:01:00.000Z",
    updatedAt: "2025-06-01T12:01:00.000Z"
  }
  const initiated = {
    attemptId: "ATTEMPT-123",
    orderId: "ORDER-123",
    userId: "USER-9",
    amountMinor: 12_950,
    currency: "USD",
    status: "INITIATED",
    reason: null,
    gateway: "rest",
    refundingMinor: 0,
    refundedMinor: 0,
    version: 1,
    createdAt: "2025-06-01T12:01:00.000Z",
    updatedAt: "2025-06-01T12:01:00.000Z"
  }

  test("still make the order that they made when they were written", () => {
    expect(order(OrderCreated)).toEqual(placed)
    expect(order(OrderCreated, OrderPaymentStarted)).toEqual({
      ...placed,
      paymentAttemptId: "ATTEMPT-123",
      version: 2,
      updatedAt: "2025-06-01T12:02:00.000Z"
    })
    expect(order(OrderCreated, OrderPaymentStarted, OrderPaid, OrderFulfilled)).toEqual({
      ...placed,
      status: "FULFILLED",
      version: 4,
      updatedAt: "2025-06-01T12:04:00.000Z"
    })
    expect(order(OrderCreated, OrderPaymentStarted, OrderReservationLost, OrderPaymentFailed, OrderCanceled)).toEqual({
      ...placed,
      status: "CANCELED",
      reservationLost: true,
      version: 5,
      updatedAt: "2025-06-01T12:05:00.000Z"
    })
    expect(order(OrderCreated, OrderHeld)).toEqual({
      ...placed,
      status: "HELD",
      version: 2,
      updatedAt: "2025-06-01T12:02:00.000Z"
    })
    expect(order(OrderCreated, OrderHeld, OrderReleased)).toEqual({
      ...placed,
      reviewed: true,
      version: 3,
      updatedAt: "2025-06-01T12:03:00.000Z"
    })
    expect(order(OrderCreated, OrderPaymentStarted, OrderHeld, OrderCanceled)).toEqual({
      ...placed,
      status: "CANCELED",
      version: 4,
      updatedAt: "2025-06-01T12:04:00.000Z"
    })
  })

  test("still make the payment that they made when they were written", () => {
    expect(payment(PaymentInitiated)).toEqual(initiated)
    expect(payment(PaymentInitiated, PaymentAuthorised, PaymentCaptured)).toEqual({
      ...initiated,
      status: "CAPTURED",
      version: 3,
      updatedAt: "2025-06-01T12:03:00.000Z"
    })
    expect(payment(PaymentInitiated, PaymentWasDeclined)).toEqual({
      ...initiated,
      status: "DECLINED",
      reason: "insufficient_funds",
      version: 2,
      updatedAt: "2025-06-01T12:02:00.000Z"
    })
    expect(payment(PaymentInitiated, PaymentAuthorised, PaymentWasVoided)).toEqual({
      ...initiated,
      status: "VOIDED",
      reason: "reservation_expired",
      version: 3,
      updatedAt: "2025-06-01T12:03:00.000Z"
    })
  })
})

describe("a golden file that cannot fail is no golden file", () => {
  const type = "ecommerce.test.thing.happened.v1"
  const fields = {
    thingId: Schema.String,
    note: Schema.String,
    items: Schema.Array(Schema.Struct({ qty: Schema.Int }))
  }
  const happened = <A, I>(payload: Schema.Codec<A, I>) => define(type, "order.events", payload)
  const first = happened(Schema.Struct(fields))
  const payload = { thingId: "T1", note: "fresh", items: [{ qty: 2 }] }

  const withFolder = <A>(use: (folder: string) => A): A => {
    const folder = mkdtempSync(join(tmpdir(), "merkato-golden-"))
    try {
      return use(folder)
    } finally {
      rmSync(folder, { recursive: true })
    }
  }
  const keep = (folder: string, minor: number, content: unknown) =>
    writeFileSync(join(folder, nameOf(type, minor)), JSON.stringify(content))
  const afterChangeTo = <A, I>(changed: Schema.Codec<A, I>) =>
    withFolder((folder) => {
      keep(folder, 0, payload)
      return findings(folder, happened(changed))
    })

  test("an event without one is found", () => {
    expect(withFolder((folder) => findings(folder, first))).toEqual([`${type}.json is missing`])
  })

  test("the schema it was written with has no findings", () => {
    expect(afterChangeTo(Schema.Struct(fields))).toEqual([])
  })

  test("a new required field is found", () => {
    expect(afterChangeTo(Schema.Struct({ ...fields, colour: Schema.String }))).toContain(
      `${type}.json can no longer be read`
    )
  })

  test("a field that was taken away is found", () => {
    const { note: _, ...rest } = fields
    expect(afterChangeTo(Schema.Struct(rest))).toEqual([`${type}.json is written differently now`])
  })

  test("a field that was renamed is found, deep inside as well", () => {
    const renamed = Schema.Struct({
      ...fields,
      items: Schema.Array(Schema.Struct({ quantity: Schema.optionalKey(Schema.Int) }))
    })
    expect(afterChangeTo(renamed)).toContain(`${type}.json is written differently now`)
  })

  test("a narrower type is found", () => {
    const narrower = Schema.Struct({ ...fields, note: Schema.Literals(["stale"]) })
    expect(afterChangeTo(narrower)).toEqual([`${type}.json can no longer be read`])
  })

  test("a default that fills in what was not there is found", () => {
    const filled = Schema.Struct({
      ...fields,
      colour: Schema.String.pipe(Schema.withDecodingDefaultKey(Effect.succeed("red")))
    })
    expect(afterChangeTo(filled)).toContain(`${type}.json is written differently now`)
  })

  test("an added optional field asks for a file of its own, and the older ones stay as they are", () => {
    const added = happened(Schema.Struct({ ...fields, colour: Schema.optionalKey(Schema.String) }))
    withFolder((folder) => {
      keep(folder, 0, payload)
      expect(findings(folder, added)).toEqual(["colour stands in no golden file"])
      keep(folder, 1, { ...payload, colour: "red" })
      expect(findings(folder, added)).toEqual([])
      expect(findings(folder, first)).toEqual([`${type}@1.1.json is written differently now`])
    })
  })

  test("an added optional field is found among many others too", () => {
    const names = [..."abcdefghijklmnopqrst"]
    const required = Object.fromEntries(names.map((name) => [name, Schema.Int]))
    const added = Schema.Struct({ ...required, colour: Schema.optionalKey(Schema.String) })
    withFolder((folder) => {
      keep(folder, 0, Object.fromEntries(names.map((name) => [name, 1])))
      expect(findings(folder, happened(added))).toEqual(["colour stands in no golden file"])
    })
  })

  test("missing files are written once and never again", () => {
    withFolder((folder) => {
      writeMissing(folder, first)
      expect(readdirSync(folder)).toEqual([`${type}.json`])
      expect(findings(folder, first)).toEqual([])
      const written = readFileSync(join(folder, `${type}.json`), "utf8")
      writeMissing(folder, first)
      expect(readdirSync(folder)).toEqual([`${type}.json`])

      const added = happened(Schema.Struct({ ...fields, colour: Schema.optionalKey(Schema.String) }))
      writeMissing(folder, added)
      expect(readdirSync(folder).toSorted()).toEqual([`${type}.json`, `${type}@1.1.json`])
      expect(findings(folder, added)).toEqual([])
      expect(readFileSync(join(folder, `${type}.json`), "utf8")).toBe(written)
    })
  })

  test("a file that is there is never overwritten, even one that is wrong", () => {
    withFolder((folder) => {
      keep(folder, 0, { ...payload, thingId: 1 })
      const { mtimeMs } = statSync(join(folder, `${type}.json`))
      writeMissing(folder, first)
      expect(readdirSync(folder)).toEqual([`${type}.json`])
      expect(read(folder, `${type}.json`)).toEqual({ ...payload, thingId: 1 })
      expect(statSync(join(folder, `${type}.json`)).mtimeMs).toBe(mtimeMs)
    })
  })
})
