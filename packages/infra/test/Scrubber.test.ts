// Tries to get card numbers, tokens and passwords past the scrubber; and checks that what people need to read survives.
import { describe, expect, test } from "bun:test"
import { Cause, ConfigProvider, Effect, Logger, Option, Random, Redacted, Schema, Tracer } from "effect"
import * as fc from "fast-check"
import { passesLuhn } from "@merkato/domain/payments/CardNumber"
import { PaymentToken } from "@merkato/domain/payments/Payment"
import * as Ids from "@merkato/domain/kernel/Ids"
import { derivedId } from "../src/idempotency/Digest.ts"
import { scrub, scrubNamed, scrubText } from "../src/telemetry/Scrubber.ts"
import { scrubbing, scrubbingTracer } from "../src/telemetry/Scrubbing.ts"
import * as Telemetry from "../src/telemetry/Telemetry.ts"

/** Test numbers of the schemes: Visa of 13, 16 and 19, Mastercard, Amex, Diners, Discover, JCB, UnionPay, Maestro, Mir. */
const cards = [
  "4222222222222",
  "4111111111111111",
  "4000000000000000006",
  "5555555555554444",
  "2223003122003222",
  "378282246310005",
  "30569309025904",
  "6011111111111117",
  "3530111333300000",
  "6200000000000005",
  "6759649826438453",
  "2200000000000004"
]

/** Whether anybody could put the number together again from what was written: its digits, in order, without the rest. */
const shows = (written: unknown, card: string): boolean => {
  const text = typeof written === "string" ? written : Bun.inspect(written, { depth: 30 })
  return text
    .normalize("NFKC")
    .replaceAll(/[^0-9]/g, "")
    .includes(card)
}

test("the cards of this test are cards", () => {
  for (const card of cards) expect([card, passesLuhn(card)]).toEqual([card, true])
})

const every = (card: string, size: number, separator: string) =>
  (card.match(new RegExp(`.{1,${size}}`, "g")) ?? []).join(separator)

/** A card number in a script of its own: `zero` is the script's zero. */
const inScript = (card: string, zero: number) =>
  card.replaceAll(/\d/g, (digit) => String.fromCodePoint(zero + Number(digit)))

/** Ways to write a card number down. */
const dresses: Readonly<Record<string, (card: string) => string>> = {
  plain: (card) => card,
  "in a sentence": (card) => `The card ${card} was declined.`,
  "next to letters": (card) => `card${card}x`,
  "in groups with spaces": (card) => every(card, 4, " "),
  "with dashes": (card) => every(card, 4, "-"),
  "with dots": (card) => every(card, 4, "."),
  "with slashes": (card) => every(card, 4, "/"),
  "with underscores": (card) => every(card, 4, "_"),
  "with commas and spaces": (card) => every(card, 4, ", "),
  "with two spaces": (card) => every(card, 4, "  "),
  "with a line break": (card) => every(card, 4, "\n"),
  "with tabs": (card) => every(card, 4, "\t"),
  "with non-breaking spaces": (card) => every(card, 4, "\u00a0"),
  "with en dashes": (card) => every(card, 4, "–"),
  "digit by digit": (card) => every(card, 1, " "),
  "digit by digit, with dashes": (card) => every(card, 1, "-"),
  "in pairs": (card) => every(card, 2, " "),
  "in threes": (card) => every(card, 3, "."),
  "in odd groups": (card) => `${card.slice(0, 2)} ${card.slice(2, 5)}-${card.slice(5, 9)}.${card.slice(9)}`,
  "with zero-width spaces": (card) => every(card, 1, "\u200b"),
  "with zero-width joiners in groups": (card) => every(card, 4, "\u200d"),
  "with soft hyphens": (card) => every(card, 4, "\u00ad"),
  "with combining accents": (card) => every(card, 1, "\u0301"),
  "right to left": (card) => `\u202e${every(card, 4, "\u200f")}\u202c`,
  "in full width": (card) => inScript(card, 0xff10),
  "in Arabic-Indic digits": (card) => inScript(card, 0x0660),
  "in Devanagari digits, in groups": (card) => every(inScript(card, 0x0966), 4, " "),
  "in mathematical digits": (card) => inScript(card, 0x1d7ce),
  "in superscripts": (card) => card.replaceAll(/\d/g, (digit) => [..."⁰¹²³⁴⁵⁶⁷⁸⁹"][Number(digit)] ?? ""),
  "in a URL": (card) => `https://shop.example/pay?card=${card}&x=1`,
  "in a URL, percent-encoded": (card) => `https://shop.example/pay?q=${encodeURIComponent(every(card, 4, " "))}`,
  "with every digit percent-encoded": (card) => card.replaceAll(/\d/g, (digit) => `%3${digit}`),
  "percent-encoded twice": (card) => card.replaceAll(/\d/g, (digit) => `%253${digit}`),
  "in JSON": (card) => JSON.stringify({ payment: { number: card } }),
  "in JSON in JSON": (card) => JSON.stringify({ body: JSON.stringify({ number: card }) }),
  "in JSON, split": (card) => JSON.stringify({ a: card.slice(0, 6), b: { c: card.slice(6) } }),
  "in base64": (card) => `Body ${Buffer.from(`number=${card}`).toString("base64")}`,
  "in base64url": (card) => Buffer.from(card).toString("base64url"),
  "in hexadecimal": (card) => Buffer.from(card).toString("hex"),
  "in SOAP": (card) => `<soap:Body><Number>${card}</Number></soap:Body>`,
  "with more digits in front": (card) => `99${card}`,
  "in front of an amount": (card) => `${card} 129.50`
}

describe("a card number", () => {
  for (const [how, dress] of Object.entries(dresses)) {
    test(`${how} is taken out`, () => {
      for (const card of cards) {
        const written = scrubText(dress(card))
        expect({ how, card, written, shows: shows(written, card) }).toEqual({ how, card, written, shows: false })
        if (/base64|hex|percent|JSON in/.test(how)) expect(written).toContain("[removed]")
      }
    })
  }

  /** Ways to spread it over a value. */
  const spreads: Readonly<Record<string, (card: string) => unknown>> = {
    "as a field": (card) => ({ a: { b: [{ c: card }] } }),
    "as a number": (card) => ({ n: Number(card) <= Number.MAX_SAFE_INTEGER ? Number(card) : BigInt(card) }),
    "as a bigint": (card) => [BigInt(card)],
    "as a key": (card) => ({ [card]: 1 }),
    "in an array of digits": (card) => [...card].map(Number),
    "in an array of digit strings": (card) => ({ digits: [...card] }),
    "in an array of groups": (card) => every(card, 4, ",").split(","),
    "in numbers of four": (card) =>
      card.length === 16 && !/,0/.test(every(card, 4, ",")) ? every(card, 4, ",").split(",").map(Number) : card,
    "over fields": (card) => ({ first: card.slice(0, 4), second: card.slice(4, 9), rest: card.slice(9) }),
    "over nested objects": (card) => ({
      a: { x: card.slice(0, 5) },
      b: { y: { z: card.slice(5, 11) } },
      c: [card.slice(11)]
    }),
    "in an Error": (card) => new Error(`cannot charge ${card}`),
    "in the cause of an Error": (card) => new Error("no", { cause: new Error(`at ${card}`) }),
    "in a field of an Error": (card) => Object.assign(new Error("no"), { body: { number: card } }),
    "in a Map": (card) => new Map([["number", card]]),
    "in a Set": (card) => new Set([card]),
    "in a URL": (card) => new URL(`https://shop.example/?n=${card}`),
    "in bytes": (card) => new TextEncoder().encode(`n=${card}`),
    "through toJSON": (card) => ({ toJSON: () => ({ number: card }) }),
    "in a circle": (card) => {
      const circle: { self?: unknown; number: string } = { number: card }
      circle.self = circle
      return circle
    }
  }
  for (const [how, spread] of Object.entries(spreads)) {
    test(`${how} is taken out`, () => {
      for (const card of cards) {
        const written = scrub(spread(card))
        const seen = written instanceof Uint8Array ? Buffer.from(written).toString() : written
        expect([how, card, shows(seen, card)]).toEqual([how, card, false])
        if (written instanceof Error) expect(shows(written.stack, card)).toBe(false)
      }
    })
  }

  test("of any scheme and length, between any texts, in groups of any size, is taken out", () => {
    const card = fc
      .tuple(
        fc.constantFrom("4", "51", "55", "2221", "34", "37", "36", "6011", "62", "65", "3530"),
        fc.integer({ min: 1, max: 5 }),
        fc.array(fc.nat({ max: 9 }), { minLength: 20, maxLength: 20 })
      )
      .map(([prefix, _, digits]) => {
        const length = /^3[47]/.test(prefix) ? 15 : prefix === "36" ? 14 : 16
        const body = `${prefix}${digits.join("")}`.slice(0, length - 1)
        return `${body}${[..."0123456789"].find((check) => passesLuhn(body + check)) ?? ""}`
      })
    fc.assert(
      fc.property(
        card,
        fc.integer({ min: 1, max: 16 }),
        fc.constantFrom(" ", "-", ".", "\u200b", " - "),
        (number, size, separator) => {
          const written = scrubText(`charged: ${every(number, size, separator)}; thanks`)
          expect([number, shows(written, number)]).toEqual([number, false])
          expect(written).toStartWith("charged: ")
          expect(written).toEndWith("; thanks")
        }
      ),
      { numRuns: 500 }
    )
  })
})

describe("a secret", () => {
  const jwt = `eyJ${"hbGciOiJFZERTQSJ9"}.${"eyJzdWIiOiJVU0VSLTEifQ"}.${"c2lnbmF0dXJl".repeat(4)}`
  const texts: ReadonlyArray<readonly [text: string, secret: string]> = [
    ["Paying with tok_ok_very-secret now", "very-secret"],
    ['{"paymentToken":"tok_abc"}', "tok_abc"],
    ["paymentToken=abc123", "abc123"],
    [`Authorization: Bearer ${jwt}`, "c2lnbmF0dXJl"],
    [`bearer%20${jwt}`, "c2lnbmF0dXJl"],
    [`the token was ${jwt}!`, "c2lnbmF0dXJl"],
    ["authorization: Basic dXNlcjpwYXNzd29yZA==", "dXNlcjpwYXNz"],
    ["basic dXNlcjpwYXNzd29yZA==", "dXNlcjpwYXNz"],
    ["postgres://shop:hunter2@db.example/merkato", "hunter2"],
    ["cannot connect: password=hunter2, host=db", "hunter2"],
    ['login {"password" : "hunter \\"2", "name": "Ada"}', "hunter"],
    ["api_key: s3cr3t", "s3cr3t"],
    ["X-Api-Key: s3cr3t", "s3cr3t"],
    ["?access_token=s3cr3t&x=1", "s3cr3t"],
    ["%7B%22password%22%3A%22hunter2%22%7D", "hunter2"],
    [Buffer.from("password=hunter2").toString("base64"), Buffer.from("hunter2").toString("base64").slice(0, 6)],
    ["-----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY-----", "MC4CAQ"],
    ["cvv=123", "123"]
  ]
  for (const [text, secret] of texts) {
    test(`in the text ${JSON.stringify(text).slice(0, 50)} is taken out`, () => {
      expect(scrubText(text)).not.toContain(secret)
      expect(scrubText(text)).toContain("[removed]")
      expect(Bun.inspect(scrub({ deep: [{ text }] }), { depth: 9 })).not.toContain(secret)
    })
  }

  test("under a telling name is taken out, whatever it is", () => {
    for (const name of [
      "password",
      "newPassword",
      "PASSWORD",
      "client_secret",
      "paymentToken",
      "access-token",
      "Authorization",
      "cookie",
      "set-cookie",
      "x-api-key",
      "cardNumber",
      "card_number",
      "pan",
      "cvc",
      "cvv2",
      "pin",
      "privateKey"
    ]) {
      for (const value of ["x", 123, ["x"], { a: "x" }]) {
        expect([name, scrub({ [name]: value })]).toEqual([name, { [name]: "[removed]" }])
        expect([name, scrubNamed(name, value)]).toEqual([name, "[removed]"])
      }
    }
    expect(scrub({ kty: "oct", kid: "k1", k: "c2VjcmV0" })).toEqual({ kty: "oct", kid: "k1", k: "[removed]" })
    expect(scrub({ kty: "OKP", x: "public", d: "secret" })).toEqual({ kty: "OKP", x: "public", d: "[removed]" })
  })

  test("that Effect keeps redacted stays so", () => {
    expect(Bun.inspect(scrub({ key: Redacted.make("hunter2") }))).not.toContain("hunter2")
  })
})

describe("what people need to read survives:", () => {
  const same = (value: unknown) => expect(scrub(value)).toEqual(value)

  test("ids, as the shop makes them", () => {
    const made = Effect.runSync(
      Effect.replicateEffect(Effect.all([Ids.nextOrderId, Ids.next]), 2_000).pipe(Random.withSeed("ids"))
    ).flat()
    for (const id of made) expect(scrubText(`order ${id} paid`)).toBe(`order ${id} paid`)
    for (let nth = 0; nth < 2_000; nth++) same(derivedId("PAY", String(nth)))
    for (const id of ["ORDER-123", "USER-1", "PAY-14715-14", "SKU-4006381333931".slice(0, 12)]) same(id)
    same({ traceparent: "00-41111111111111111111111111111111-4111111111111111-01" })
  })

  test("UUIDs of every kind, trace ids and digests", () => {
    fc.assert(
      fc.property(fc.uuid(), (id) => expect(scrubText(`id=${id}.`)).toBe(`id=${id}.`)),
      { numRuns: 2_000 }
    )
    const hex = fc.string({ unit: fc.constantFrom(..."0123456789abcdef"), minLength: 32, maxLength: 64 })
    fc.assert(
      fc.property(
        hex,
        (digest) => fc.pre(/[a-f]/.test(digest)) === undefined && expect(scrubText(digest)).toBe(digest)
      ),
      {
        numRuns: 2_000
      }
    )
  })

  test("amounts, as numbers and in words", () => {
    const minor = fc.integer({ min: 0, max: 1_000_000_000_000_000 })
    fc.assert(fc.property(minor, minor, (amountMinor, totalMinor) => same({ amountMinor, deep: [{ totalMinor }] })))
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 99_999_999_999 }), (cents) => {
        same(`${(cents / 100).toFixed(2)} USD`)
        same({ amount: cents / 100 })
      })
    )
    const price = fc.integer({ min: 0, max: 9_999_999 }).map((cents) => (cents / 100).toFixed(2))
    fc.assert(fc.property(fc.array(price, { maxLength: 12 }), (prices) => same(prices.join(" "))))
    fc.assert(
      fc.property(
        fc.array(fc.record({ qty: fc.integer({ min: 1, max: 99 }), priceMinor: minor }), { maxLength: 20 }),
        same
      )
    )
  })

  test("times, in every way they are written", () => {
    const millis = fc.integer({ min: Date.UTC(2010, 0), max: Date.UTC(2033, 0) })
    fc.assert(
      fc.property(millis, (time) => {
        for (const at of [new Date(time).toISOString(), String(time), time, `${time}000`, `${time}000000`]) same(at)
        same(`[${new Date(time).toISOString().slice(0, 19).replace("T", " ")}] ok`)
      }),
      { numRuns: 1_000 }
    )
  })

  test("addresses, versions, statements and stacks", () => {
    for (const text of [
      "http://127.0.0.1:54321/v1/attempts/PAY-1/authorise",
      "PostgreSQL 18.4 on x86_64-linux, port 5432",
      "select attempt_id, status from payments.payments where version = $1",
      "at run (/srv/merkato/packages/services/src/payments/Payments.ts:1234:56)",
      "tokens are never logged",
      "The token has expired",
      "retryTokens: 200",
      "Idempotency-Key: 7d4f-11"
    ]) {
      same(text)
    }
  })

  test("the shape of a value, and errors as errors", () => {
    class Away extends Schema.TaggedError<Away>()("Away", { service: Schema.String }) {
      override get message() {
        return `${this.service} is away`
      }
    }
    const error = scrub(new Away({ service: "tok_secret" }))
    expect(error).toBeInstanceOf(Away)
    expect(String(error)).toContain("[removed] is away")
    expect(error).toMatchObject({ _tag: "Away", service: "[removed]" })
    same({ a: null, b: undefined, c: true, d: [1, 2.5, "x"], e: { f: {} }, g: new Date(0) })
  })

  test("anything is looked through in bounds: deep, wide and long", () => {
    let deep: unknown = cards[1]
    for (let level = 0; level < 200; level++) deep = { deep }
    expect(shows(scrub(deep), "4111111111111111")).toBe(false)
    expect(shows(scrub(Array.from({ length: 50_000 }, () => "4111111111111111")), "4111111111111111")).toBe(false)
    expect(scrubText(`${"x".repeat(2_000_000)}4111111111111111`).length).toBeLessThan(100_000)
  })
})

describe("a process", () => {
  const card = "4111 1111 1111 1111"
  const dirty = Effect.gen(function* () {
    yield* Effect.logError(`card ${card}`, { number: card, orderId: "ORDER-1" }, Cause.fail(new Error(`fail ${card}`)))
    yield* Effect.logError(Cause.die(Object.assign(new Error("tok_secret"), { cause: new Error(card) })))
  }).pipe(Effect.annotateLogs({ paymentToken: "tok_annotated", note: card, orderId: "ORDER-1" }))

  test("logs nothing secret through any logger", async () => {
    for (const logger of [Logger.formatJson, Logger.formatLogFmt, Logger.formatSimple]) {
      const lines: Array<unknown> = []
      const kept = Logger.map(scrubbing(logger), (line) => lines.push(line))
      await Effect.runPromise(dirty.pipe(Effect.provide(Logger.layer([kept]))))
      const text = lines.join("\n")
      expect(lines.length).toBe(2)
      expect(text).toContain("ORDER-1")
      expect(text).toContain("[removed]")
      for (const secret of ["1111", "tok_secret", "tok_annotated"]) expect(text).not.toContain(secret)
    }
  })

  test("writes nothing secret into spans: attributes, events, and how they ended", async () => {
    const spans: Array<Tracer.Span> = []
    const told: Array<unknown> = []
    const tracer = Tracer.make({
      span: (options) => {
        const span = new Tracer.NativeSpan(options)
        const { event, end } = span
        span.event = (name, at, attributes) => {
          told.push(name, attributes)
          event.call(span, name, at, attributes)
        }
        span.end = (at, exit) => {
          told.push(exit)
          end.call(span, at, exit)
        }
        spans.push(span)
        return span
      }
    })
    await Effect.annotateCurrentSpan({ number: card, paymentToken: "tok_secret", orderId: "ORDER-1" }).pipe(
      Effect.andThen(Effect.die(new Error(`no ${card}`))),
      Effect.withSpan(`pay ${card}`, { attributes: { url: `/pay?card=${card}` } }),
      Effect.exit,
      Effect.provideService(Tracer.Tracer, scrubbingTracer(tracer)),
      Effect.runPromise
    )
    expect(spans.length).toBe(1)
    const text = Bun.inspect([spans.map(({ name, attributes }) => [name, [...attributes]]), told], { depth: 20 })
    expect(text).toContain("ORDER-1")
    for (const secret of ["1111", "tok_secret"]) expect(text).not.toContain(secret)
  })

  test("has the scrubber between everything it tells and everybody who writes it", async () => {
    const written: Array<string> = []
    const outcome = await Effect.gen(function* () {
      const loggers = yield* Logger.CurrentLoggers
      // What the console would get: its own loggers, asked for what they make of a line.
      expect(loggers.size).toBe(1)
      const { error, log } = console
      console.error = (...parts: ReadonlyArray<unknown>) => void written.push(Bun.inspect(parts, { depth: 9 }))
      console.log = console.error
      yield* dirty.pipe(Effect.ensuring(Effect.sync(() => Object.assign(console, { error, log }))))
    }).pipe(
      Effect.provide(Telemetry.layer("test")),
      Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromUnknown({ MERKATO_LOG_FORMAT: "json" })),
      Effect.scoped,
      Effect.runPromiseExit
    )
    expect(outcome._tag).toBe("Success")
    expect(written.length).toBe(2)
    expect(written.join()).toContain("[removed]")
    for (const secret of ["1111", "tok_secret", "tok_annotated"]) expect(written.join()).not.toContain(secret)
  })
})

describe("a payment token", () => {
  const accepts = (token: string) => Option.isSome(Schema.decodeUnknownOption(PaymentToken)(token))

  test("that looks like a card number is refused, by a message that does not repeat it", () => {
    for (const card of cards) {
      for (const token of [
        `tok_${card}`,
        `tok_${every(card, 4, "-")}`,
        `tok_${every(card, 4, "_")}`,
        `tok_card_${card}_x`
      ]) {
        expect([token, accepts(token)]).toEqual([token, false])
      }
    }
  })

  test("is any other one", () => {
    for (const token of ["tok_ok", "tok_lost", "tok_1", "tok_1234567890123456", "tok_4111111111111112"]) {
      expect([token, accepts(token)]).toEqual([token, true])
    }
    fc.assert(
      fc.property(fc.uuid({ version: 4 }), (id) =>
        expect([id, accepts(`tok_${id.replaceAll("-", "")}`)]).toEqual([id, true])
      )
    )
  })
})
