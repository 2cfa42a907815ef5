import { beforeAll, describe, expect, test } from "bun:test"
import { connect } from "node:net"
import { generateKeyPair, SignJWT } from "jose"
import { type Answer, text } from "./support/Client.ts"
import { restShop } from "./support/RestShop.ts"

const shop = restShop()

type Json = Readonly<Record<string, unknown>>

/** Who asks. */
type Caller = "nobody" | "admin" | "ada" | "eve" | "guest"

/** What is there to be asked for: Ada's order and cart, a guest's cart, and a product of which 5 are left. */
interface World {
  readonly tokens: Readonly<Record<Caller, string | undefined>>
  readonly product: string
  readonly order: string
  readonly cart: string
  readonly guestCart: string
  readonly emptyCart: string
  readonly forged: Readonly<Record<string, string>>
}

interface Request {
  readonly method: string
  readonly path: string
  readonly as?: Caller
  readonly headers?: Readonly<Record<string, string>>
  /** Sent as JSON. */
  readonly json?: unknown
  /** Sent as it is, as `application/json` unless the headers say otherwise. */
  readonly raw?: string | Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array<ArrayBuffer>>
}

interface Refusal {
  readonly status: number
  readonly code: string
  /** Where the input is wrong, each place once. */
  readonly at?: ReadonlyArray<string>
  /** A refusal of the domain, which is kept under its Idempotency-Key: in these tables. */
  readonly kept?: ReadonlyArray<string>
}

type Case = readonly [name: string, request: Request | ((world: World) => Request), refusal: Refusal]

let world: World | undefined
const present = (): World => {
  if (world === undefined) throw new Error("the world is not made yet")
  return world
}

/** The tables as they have to stay. */
let before = ""

const base64url = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url")

/** Tokens that look like the shop's and are not. */
const forgeries = async (honest: string): Promise<Record<string, string>> => {
  const [head = "", claims = "", signature = ""] = honest.split(".")
  const { kid } = JSON.parse(Buffer.from(head, "base64url").toString())
  const own = JSON.parse(Buffer.from(claims, "base64url").toString())
  const { privateKey } = await generateKeyPair("EdDSA", { crv: "Ed25519" })
  const secret = new TextEncoder().encode("a secret of more than 256 bits, so that HS256 takes it")
  const flipped = signature.startsWith("A") ? `B${signature.slice(1)}` : `A${signature.slice(1)}`
  return {
    "is no token": "not-a-token",
    "has no signature": `${head}.${claims}.`,
    "has a changed signature": `${head}.${claims}.${flipped}`,
    "has changed claims": `${head}.${base64url({ ...own, sub: "EVE" })}.${signature}`,
    'is "signed" with alg none': `${base64url({ alg: "none", kid, typ: "JWT" })}.${claims}.`,
    "is signed with HS256": await new SignJWT(own).setProtectedHeader({ alg: "HS256", kid }).sign(secret),
    "is signed with a key of another": await new SignJWT(own)
      .setProtectedHeader({ alg: "EdDSA", kid })
      .sign(privateKey),
    "names a key that is not there": await new SignJWT(own)
      .setProtectedHeader({ alg: "EdDSA", kid: "'; --" })
      .sign(privateKey),
    "has expired": await shop().token("ADA", "admin", "us", -1),
    "is for services among each other": await shop().serviceToken()
  }
}

beforeAll(async () => {
  const admin = await shop().as("ADMIN", "admin")
  const ada = await shop().as("ADA")
  const product = await shop().product({ sku: "TAKEN", name: "Milk" }, 7)
  const order = text(
    await ada.post("/api/v1/orders", { items: [{ productId: product, qty: 2 }] }, { key: "placed" }),
    "orderId"
  )
  const cart = text(await ada.post("/api/v1/carts"), "cartId")
  await ada.request("PUT", `/api/v1/carts/${cart}/items/${product}`, { body: { qty: 1 } })
  const guest = await shop().anyone.post("/api/v1/carts")
  await shop().anyone.post("/api/v1/customers", { email: "ada@example.org", password: "long enough", name: "Ada" })
  world = {
    tokens: {
      nobody: undefined,
      admin: admin.token,
      ada: ada.token,
      eve: await shop().token("EVE"),
      guest: text(guest, "guestToken")
    },
    product,
    order,
    cart,
    guestCart: text(guest, "cartId"),
    emptyCart: text(await ada.post("/api/v1/carts"), "cartId"),
    forged: await forgeries(await shop().token("ADA", "admin"))
  }
  await shop().settled()
  before = await shop().fingerprint()
}, 60_000)

const isJson = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value)

const send = async ({ method, path, as = "nobody", headers, json, raw }: Request): Promise<Answer> => {
  const token = present().tokens[as]
  const body = json === undefined ? raw : JSON.stringify(json)
  const response = await fetch(`${shop().url}${path}`, {
    method,
    headers: {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(body === undefined ? {} : { "content-type": "application/json" }),
      ...headers
    },
    ...(body === undefined ? {} : { body })
  })
  const answered: unknown = JSON.parse(await response.text())
  return { status: response.status, headers: response.headers, body: isJson(answered) ? answered : {} }
}

/** What has changed since the last time this was asked. */
const changedTables = (after: string): ReadonlyArray<string> => {
  const known = new Set(before.split("\n"))
  before = after
  return after
    .split("\n")
    .filter((line) => !known.has(line))
    .map((line) => line.split(" ", 1)[0] ?? "")
}

const refused = (cases: ReadonlyArray<Case>) => {
  for (const [name, request, { status, code, at, kept = [] }] of cases) {
    test(name, async () => {
      const asked = typeof request === "function" ? request(present()) : request
      const answer = await send(asked)
      expect([answer.status, answer.body["code"]]).toEqual([status, code])
      shop().contract.check(asked.method, asked.path, answer)
      if (at !== undefined) {
        const { errors } = answer.body
        const places = Array.isArray(errors)
          ? errors.map((error: unknown) => (isJson(error) ? error["path"] : undefined))
          : []
        expect([...new Set(places)]).toEqual([...at])
      }
      const changed = changedTables(await shop().fingerprint())
      expect(changed.toSorted()).toEqual([...kept])
    })
  }
}

const invalid = (...at: ReadonlyArray<string>): Refusal => ({
  status: 400,
  code: "validation_failed",
  ...(at.length === 0 ? {} : { at })
})
const invalidValue = (...at: ReadonlyArray<string>): Refusal => ({ status: 400, code: "invalid_value", at })
/** A refusal that is kept, and changes nothing else. */
const kept = (status: number, code: string): Refusal => ({ status, code, kept: ["orders.idempotency"] })
/** The same of a checkout, whose process is there to be looked at. */
const keptProcess = (status: number, code: string): Refusal => ({
  status,
  code,
  kept: ["orders.idempotency", "orders.sagas"]
})
const unauthenticated: Refusal = { status: 401, code: "unauthenticated" }
const forbidden: Refusal = { status: 403, code: "forbidden" }
const unsupported: Refusal = { status: 415, code: "unsupported_media_type" }
const tooLarge: Refusal = { status: 413, code: "payload_too_large" }
const notFound: Refusal = { status: 404, code: "route_not_found" }

const good = { sku: "NEW", name: "Bread", category: "Bakery", price: 3.39, currency: "USD" }
const products = "/api/v1/products"
const addProduct = (fields: Json): Request => ({
  method: "POST",
  path: products,
  as: "admin",
  json: { ...good, ...fields }
})
const addRaw = (raw: NonNullable<Request["raw"]>, headers: Readonly<Record<string, string>> = {}): Request => ({
  method: "POST",
  path: products,
  as: "admin",
  raw,
  headers
})
/** The good product as JSON text, with one field written by hand. */
const withField = (field: string, literal: string) => {
  const fields: ReadonlyArray<readonly [string, string]> = Object.entries(good).map(([name, value]) => [
    name,
    JSON.stringify(value)
  ])
  return `{${fields.map(([name, value]) => `"${name}":${name === field ? literal : value}`).join(",")}}`
}

let keys = 0
const place =
  (body: Json | ((world: World) => Json), as: Caller = "ada", headers: Readonly<Record<string, string>> = {}) =>
  (world: World): Request => ({
    method: "POST",
    path: "/api/v1/orders",
    as,
    json: typeof body === "function" ? body(world) : body,
    headers: { "idempotency-key": `bad-${++keys}`, ...headers }
  })
const placeQty =
  (literal: string) =>
  (world: World): Request => ({
    method: "POST",
    path: "/api/v1/orders",
    as: "ada",
    raw: `{"items":[{"productId":"${world.product}","qty":${literal}}]}`,
    headers: { "idempotency-key": `bad-${++keys}` }
  })
/** From a device that names itself so. */
const device =
  (request: (world: World) => Request, name: string) =>
  (world: World): Request => {
    const plain = request(world)
    return { ...plain, headers: { ...plain.headers, "x-device-id": name } }
  }
const get = (path: string, as: Caller = "nobody", headers: Readonly<Record<string, string>> = {}): Request => ({
  method: "GET",
  path,
  as,
  headers
})

const sql = "'; drop table catalogue.products cascade; --"
const mebibyte = 1_048_576
const cursor = (value: unknown) => `cursor=${base64url(value)}`

describe("a body that is not what is expected", () => {
  refused([
    [
      "wrong types in every field",
      addProduct({ sku: 1, name: [], category: null, price: "3.39", currency: 840, description: {} }),
      invalid("sku", "name", "description", "category", "price", "currency")
    ],
    [
      "no fields",
      { method: "POST", path: products, as: "admin", json: {} },
      invalid("sku", "name", "category", "price", "currency")
    ],
    ["a field nobody knows", addProduct({ colour: "red" }), invalid("colour")],
    [
      "several mistakes are told at once",
      addProduct({ sku: "", price: "1", colour: "red" }),
      invalid("colour", "sku", "price")
    ],
    ["an array", addRaw("[]"), invalid("")],
    ["null", addRaw("null"), invalid("")],
    ["a string", addRaw('"{}"'), invalid("")],
    ["a number", addRaw("1"), invalid("")],
    ["nothing at all", { method: "POST", path: products, as: "admin" }, invalid("")],
    ["JSON that ends early", addRaw('{"sku":"NEW","name":'), invalid("")],
    ["JSON with a comma too many", addRaw('{"sku":"NEW",}'), invalid("")],
    ["JSON with single quotes", addRaw("{'sku':'NEW'}"), invalid("")],
    ["JSON with a comment", addRaw('{"sku":"NEW"/**/}'), invalid("")],
    ["JSON with something behind it", addRaw(`${JSON.stringify(good)}{}`), invalid("")],
    ["JSON with NaN", addRaw(withField("price", "NaN")), invalid("")],
    ["a name twice", addRaw(`{"sku":"OTHER",${JSON.stringify(good).slice(1)}`), invalid("")],
    ["a name twice, once in disguise", addRaw(`{"\\u0073ku":"OTHER",${JSON.stringify(good).slice(1)}`), invalid("")],
    ["a name twice, deep inside", placeQty('1,"qty":99'), invalid("")],
    ["10^5 arrays in each other", addRaw(withField("name", "[".repeat(100_000) + "]".repeat(100_000))), invalid("")],
    ["10^5 objects in each other", addRaw('{"a":'.repeat(100_000) + "1" + "}".repeat(100_000)), invalid("")],
    ["10^6 opening brackets", addRaw("[".repeat(1_000_000)), invalid("")],
    ["__proto__", addRaw(`{"__proto__":{"role":"admin"},${JSON.stringify(good).slice(1)}`), invalid("__proto__")],
    [
      "constructor.prototype",
      addRaw(`{"constructor":{"prototype":{"x":1}},${JSON.stringify(good).slice(1)}`),
      invalid("constructor")
    ],
    [
      "__proto__ instead of a field",
      addRaw('{"__proto__":{"items":[]}}'),
      invalid("__proto__", "sku", "name", "category", "price", "currency")
    ],
    [
      "a name of 100,000 letters",
      addRaw(`{"${"x".repeat(100_000)}":1}`),
      invalid("x".repeat(200), "sku", "name", "category", "price", "currency")
    ]
  ])
})

describe("a body that is not JSON, or not plain", () => {
  const json = JSON.stringify(good)
  refused([
    ["text/plain", addRaw(json, { "content-type": "text/plain" }), unsupported],
    ["a form", addRaw("sku=NEW&name=Bread", { "content-type": "application/x-www-form-urlencoded" }), unsupported],
    ["multipart", addRaw("--x\r\n\r\n--x--", { "content-type": "multipart/form-data; boundary=x" }), unsupported],
    ["XML", addRaw("<product/>", { "content-type": "application/xml" }), unsupported],
    ["a type that only begins like JSON", addRaw(json, { "content-type": "application/jsonp" }), unsupported],
    ["a type that is none", addRaw(json, { "content-type": "<script>" }), unsupported],
    ["gzip", addRaw(Bun.gzipSync(json), { "content-encoding": "gzip" }), unsupported],
    ["gzip that is none", addRaw(json, { "content-encoding": "gzip" }), unsupported],
    ["several encodings", addRaw(json, { "content-encoding": "identity, br" }), unsupported],
    ["an encoding nobody knows", addRaw(json, { "content-encoding": sql }), unsupported]
  ])
})

describe("a body that is too large", () => {
  const chunks = () => {
    const chunk = new Uint8Array(65_536).fill(0x20)
    let left = 40
    return new ReadableStream<Uint8Array<ArrayBuffer>>({
      pull: (controller) => {
        if (left-- > 0) controller.enqueue(chunk)
        else controller.close()
      }
    })
  }
  refused([
    ["by its content-length", addRaw(" ".repeat(mebibyte + 1)), tooLarge],
    ["as JSON that is right otherwise", addRaw(withField("name", `"${"x".repeat(mebibyte)}"`)), tooLarge],
    ["in chunks, without a length", () => addRaw(chunks()), tooLarge],
    [
      "where none is expected",
      (world) => ({
        method: "POST",
        path: `/api/v1/orders/${world.order}/cancel`,
        as: "ada",
        raw: " ".repeat(mebibyte + 1)
      }),
      tooLarge
    ]
  ])
})

describe("text that nothing can hold", () => {
  const bytes = (...name: ReadonlyArray<number>) => {
    const [head = "", tail = ""] = withField("name", '"|"').split("|")
    return new Uint8Array([...Buffer.from(head), ...name, ...Buffer.from(tail)])
  }
  refused([
    ["U+0000 as an escape", addRaw(withField("name", '"a\\u0000b"')), invalid("name")],
    ["U+0000 as a byte", addRaw(bytes(0x61, 0x00, 0x62)), invalid("")],
    ["half a surrogate pair", addRaw(withField("name", '"\\ud83d"')), invalid("name")],
    [
      "the other half",
      addRaw(withField("description", '""').replace("{", '{"description":"\\udf4e",')),
      invalid("description")
    ],
    ["a surrogate as bytes", addRaw(bytes(0xed, 0xa0, 0xbd)), invalid("")],
    ["bytes that are not UTF-8", addRaw(bytes(0xff, 0xfe)), invalid("")],
    ["UTF-8 that is longer than need be", addRaw(bytes(0xc0, 0xaf)), invalid("")],
    ["UTF-8 that ends early", addRaw(bytes(0xf0, 0x9f, 0x8d)), invalid("")],
    ["Latin-1", addRaw(bytes(0x43, 0x61, 0x66, 0xe9)), invalid("")],
    ["UTF-16", addRaw(new Uint8Array(Buffer.from(`\ufeff${JSON.stringify(good)}`, "utf16le"))), invalid("")],
    ["a name of white space", addProduct({ name: " \t\n" }), invalid("name")],
    ["an empty name", addProduct({ name: "" }), invalid("name")],
    ["a name that is too long", addProduct({ name: "x".repeat(201) }), invalid("name")],
    ["a description that is too long", addProduct({ description: "x".repeat(4_001) }), invalid("description")],
    ["SQL as a SKU", addProduct({ sku: sql }), invalid("sku")],
    ["a path as a SKU", addProduct({ sku: "../../etc/passwd" }), invalid("sku")],
    ["a SKU that is too long", addProduct({ sku: "x".repeat(65) }), invalid("sku")],
    ["a SKU that another product has", addProduct({ sku: "TAKEN" }), { status: 409, code: "sku_taken" }]
  ])
})

describe("a price that cannot be one", () => {
  const price = (literal: string, currency = "USD") =>
    addRaw(withField("price", literal).replace('"USD"', `"${currency}"`))
  refused([
    ["negative", price("-3.39"), invalidValue("price")],
    ["nothing", price("0"), invalidValue("price")],
    ["minus nothing", price("-0.0"), invalidValue("price")],
    ["less than a cent", price("0.001"), invalidValue("price")],
    ["with half a cent", price("3.395"), invalidValue("price")],
    ["with half a yen", price("149.5", "JPY"), invalidValue("price")],
    ["with four decimals of a dinar", price("1.0005", "KWD"), invalidValue("price")],
    ["10^30", price("1e30"), invalidValue("price")],
    ["30 digits", price("1".repeat(30)), invalidValue("price")],
    ["a cent more than a price may be", price("10000000.01"), invalidValue("price")],
    ["beyond all numbers", price("1e400"), invalid("price")],
    ["as text", price('"3.39"'), invalid("price")],
    ["a currency that is not traded", addProduct({ currency: "XAU" }), invalid("currency")],
    ["a currency in small letters", addProduct({ currency: "usd" }), invalid("currency")],
    ["SQL as a currency", addProduct({ currency: sql }), invalid("currency")],
    [
      "a new price without a reason",
      (world) => ({
        method: "PUT",
        path: `${products}/${world.product}/price`,
        as: "admin",
        json: { price: 1, currency: "USD" }
      }),
      invalid("reason")
    ],
    [
      "a new price of nothing",
      (world) => ({
        method: "PUT",
        path: `${products}/${world.product}/price`,
        as: "admin",
        json: { price: 0, currency: "USD", reason: "gift" }
      }),
      invalidValue("price")
    ]
  ])
})

describe("an order that makes no sense", () => {
  const line = (fields: Json) => place(({ product }) => ({ items: [{ productId: product, qty: 1, ...fields }] }))
  const whole = (fields: Json) => place(({ product }) => ({ items: [{ productId: product, qty: 1 }], ...fields }))
  refused([
    ["of nothing", place({ items: [] }), invalid("items")],
    [
      "of too many lines",
      place(({ product }) => ({ items: Array.from({ length: 101 }, () => ({ productId: product, qty: 1 })) })),
      invalid("items")
    ],
    ["of no list", place({ items: { 0: { productId: "X", qty: 1 }, length: 1 } }), invalid("items")],
    ["of nulls", place({ items: [null] }), invalid("items[0]")],
    ["of no units", placeQty("0"), invalid("items[0].qty")],
    ["of less than no units", placeQty("-1"), invalid("items[0].qty")],
    ["of a fraction", placeQty("1.5"), invalid("items[0].qty")],
    ["of a little more than a unit", placeQty("1.0000000000000002"), invalid("items[0].qty")],
    ["of too many units", placeQty("100"), invalid("items[0].qty")],
    ["of 2^53 + 1 units", placeQty("9007199254740993"), invalid("items[0].qty")],
    ["of 2^31 units", placeQty("2147483648"), invalid("items[0].qty")],
    ["of units beyond all numbers", placeQty("1e400"), invalid("items[0].qty")],
    ["of units as text", placeQty('"1"'), invalid("items[0].qty")],
    ["of true units", placeQty("true"), invalid("items[0].qty")],
    ["of units as an array", placeQty("[1]"), invalid("items[0].qty")],
    ["with its own price", line({ price: 0.01 }), invalid("items[0].price")],
    ["of SQL", line({ productId: sql }), invalid("items[0].productId")],
    ["of an empty id", line({ productId: "" }), invalid("items[0].productId")],
    ["of an id that is too long", line({ productId: "x".repeat(65) }), invalid("items[0].productId")],
    ["of an id with U+0000", line({ productId: "P\u0000" }), invalid("items[0].productId")],
    ["of an id with a line break behind it", line({ productId: "PROD-1\n" }), invalid("items[0].productId")],
    ["for somebody else", whole({ userId: "EVE" }), invalid("userId")],
    ["in a currency in small letters", whole({ currency: "usd" }), invalid("currency")],
    ["in a currency with SQL", whole({ currency: sql }), invalid("currency")],
    ["with a total as text", whole({ expectedTotal: "1" }), invalid("expectedTotal")],
    [
      "in a currency that nobody trades in",
      whole({ currency: "ZZZ" }),
      { status: 422, code: "currency_not_supported" }
    ],
    ["in a currency that the product is not sold in", whole({ currency: "EUR" }), kept(422, "currency_not_supported")],
    ["of a product that is not there", line({ productId: "PROD-NONE" }), kept(422, "product_not_found")],
    ["for a total that it does not have", whole({ expectedTotal: -1 }), kept(409, "price_changed")],
    ["for a total of 10^300", whole({ expectedTotal: 1e300 }), kept(409, "price_changed")],
    ["of more than there is", line({ qty: 6 }), kept(409, "out_of_stock")],
    [
      "of more than there is, in lines of less",
      place(({ product }) => ({ items: Array.from({ length: 100 }, () => ({ productId: product, qty: 99 })) })),
      kept(409, "out_of_stock")
    ]
  ])
})

describe("an Idempotency-Key that cannot be one", () => {
  const needed: Refusal = { status: 400, code: "idempotency_key_required" }
  const sound = ({ product }: World): Json => ({ items: [{ productId: product, qty: 1 }] })
  const keyed = (key: string) => place(sound, "ada", { "idempotency-key": key })
  refused([
    ["none", (world) => ({ method: "POST", path: "/api/v1/orders", as: "ada", json: sound(world) }), needed],
    ["an empty one", keyed(""), needed],
    ["one of 256 characters", keyed("k".repeat(256)), needed],
    ["one with spaces", keyed("my key"), needed],
    ["one that is not ASCII", keyed("clé"), needed],
    [
      "none, to pay",
      ({ order }) => ({
        method: "POST",
        path: `/api/v1/orders/${order}/pay`,
        as: "ada",
        json: { paymentToken: "tok_ok" }
      }),
      needed
    ],
    [
      "one that came with another order",
      place(({ product }) => ({ items: [{ productId: product, qty: 99 }] }), "ada", { "idempotency-key": "placed" }),
      { status: 422, code: "idempotency_key_reused" }
    ],
    [
      "SQL, for an order that is refused",
      place(({ product }) => ({ items: [{ productId: product, qty: 99 }] }), "ada", {
        "idempotency-key": "';drop/**/table/**/orders.orders;--"
      }),
      kept(409, "out_of_stock")
    ]
  ])
})

describe("a payment that makes no sense", () => {
  const pay =
    (json: Json, order = (world: World) => world.order, as: Caller = "ada") =>
    (world: World): Request => ({
      method: "POST",
      path: `/api/v1/orders/${order(world)}/pay`,
      as,
      json,
      headers: { "idempotency-key": `pay-${++keys}` }
    })
  refused([
    ["with a card number", pay({ paymentToken: "4111111111111111" }), invalid("paymentToken")],
    ["with a card number for a token", pay({ paymentToken: "tok_4111-1111-1111-1111" }), invalid("paymentToken")],
    ["with SQL", pay({ paymentToken: `tok_${sql}` }), invalid("paymentToken")],
    ["with a token that is too long", pay({ paymentToken: `tok_${"x".repeat(121)}` }), invalid("paymentToken")],
    ["on a rail that is not there", pay({ paymentToken: "tok_ok", rail: "pigeon" }), invalid("rail")],
    ["of an amount of one's own", pay({ paymentToken: "tok_ok", amount: 0.01 }), invalid("amount")],
    ["of an order that cannot be", pay({ paymentToken: "tok_ok" }, () => "x".repeat(65)), invalid("orderId")],
    [
      "of an order that is not there",
      pay({ paymentToken: "tok_ok" }, () => "ORDER-NONE"),
      kept(404, "order_not_found")
    ],
    ["of somebody else's order", pay({ paymentToken: "tok_ok" }, undefined, "eve"), kept(403, "not_your_order")],
    [
      "of somebody else's order, as a guest",
      pay({ paymentToken: "tok_ok" }, undefined, "guest"),
      kept(403, "not_your_order")
    ],
    ["by nobody", pay({ paymentToken: "tok_ok" }, undefined, "nobody"), unauthenticated],
    ["from a device with spaces", device(pay({ paymentToken: "tok_ok" }), "my phone"), invalid("x-device-id")],
    ["from a device that is too long", device(pay({ paymentToken: "tok_ok" }), "x".repeat(129)), invalid("x-device-id")]
  ])
})

describe("a checkout that makes no sense", () => {
  const checkout =
    (fields: Json, as: Caller = "ada", headers: Readonly<Record<string, string>> = {}) =>
    ({ cart }: World): Request => ({
      method: "POST",
      path: "/api/v1/checkout",
      as,
      json: { cartId: cart, paymentToken: "tok_ok", ...fields },
      headers: { "idempotency-key": `checkout-${++keys}`, ...headers }
    })
  const needed: Refusal = { status: 400, code: "idempotency_key_required" }
  refused([
    [
      "of nothing at all",
      { method: "POST", path: "/api/v1/checkout", as: "ada", json: {} },
      invalid("cartId", "paymentToken")
    ],
    ["without a key", checkout({}, "ada", { "idempotency-key": "" }), needed],
    ["with a key that cannot be one", checkout({}, "ada", { "idempotency-key": "my key" }), needed],
    ["with a card number", checkout({ paymentToken: "4111111111111111" }), invalid("paymentToken")],
    ["with a card number for a token", checkout({ paymentToken: "tok_4111111111111111" }), invalid("paymentToken")],
    ["on a rail that is not there", checkout({ rail: "pigeon" }), invalid("rail")],
    ["with a total as text", checkout({ expectedTotal: "1" }), invalid("expectedTotal")],
    ["of an amount of one's own", checkout({ amount: 0.01 }), invalid("amount")],
    ["of items instead of a cart", checkout({ cartId: undefined, items: [] }), invalid("items", "cartId")],
    ["of a cart named in SQL", checkout({ cartId: sql }), invalid("cartId")],
    ["of a cart whose name is too long", checkout({ cartId: "x".repeat(65) }), invalid("cartId")],
    ["from a device with spaces", device(checkout({}), "my phone"), invalid("x-device-id")],
    ["from a device without a name", device(checkout({}), ""), invalid("x-device-id")],
    ["by nobody", checkout({}, "nobody"), unauthenticated],
    ["by a guest", checkout({}, "guest"), forbidden],
    ["of a cart that is not there", checkout({ cartId: "CART-NONE" }), keptProcess(422, "cart_not_found")],
    ["of somebody else's cart", checkout({}, "eve"), keptProcess(422, "cart_not_found")],
    ["of somebody's cart, by an administrator", checkout({}, "admin"), keptProcess(422, "cart_not_found")],
    ["of a guest's cart", (world) => checkout({ cartId: world.guestCart })(world), keptProcess(422, "cart_not_found")],
    [
      "of a cart with nothing in it",
      (world) => checkout({ cartId: world.emptyCart })(world),
      keptProcess(409, "cart_empty")
    ],
    ["for a total that it does not have", checkout({ expectedTotal: -1 }), keptProcess(409, "price_changed")],
    [
      "by a way that is not there",
      { method: "GET", path: "/api/v1/checkout", as: "ada" },
      { status: 405, code: "method_not_allowed" }
    ]
  ])
})

describe("a review that makes no sense", () => {
  const review =
    (verdict: "release" | "reject", as: Caller = "admin", orderId?: string) =>
    ({ order }: World): Request => ({ method: "POST", path: `/api/v1/orders/${orderId ?? order}/${verdict}`, as })
  for (const verdict of ["release", "reject"] as const) {
    refused([
      [`${verdict}: an order that is not held`, review(verdict), { status: 409, code: "not_held" }],
      [
        `${verdict}: an order that is not there`,
        review(verdict, "admin", "ORDER-NONE"),
        { status: 404, code: "order_not_found" }
      ],
      [`${verdict}: an order that cannot be`, review(verdict, "admin", "x".repeat(65)), invalid("orderId")],
      [`${verdict}: one's own order`, review(verdict, "ada"), forbidden],
      [`${verdict}: an order that is not there, for a shopper`, review(verdict, "ada", "ORDER-NONE"), forbidden],
      [`${verdict}: by a guest`, review(verdict, "guest"), forbidden],
      [`${verdict}: by nobody`, review(verdict, "nobody"), unauthenticated]
    ])
  }
})

describe("what operators ask for", () => {
  refused([
    [
      "a process that is not there",
      get("/ops/sagas/SAGA-NONE", "admin"),
      { status: 404, code: "order_process_not_found" }
    ],
    [
      "the process of an order that has none",
      ({ order }) => get(`/ops/sagas/${order}`, "admin"),
      { status: 404, code: "order_process_not_found" }
    ],
    ["a process whose name is too long", get(`/ops/sagas/${"x".repeat(65)}`, "admin"), invalid("id")],
    ["a process named in SQL", get(`/ops/sagas/${encodeURIComponent("x' or '1'='1")}`, "admin"), invalid("id")],
    ["a process, for a shopper", ({ order }) => get(`/ops/sagas/${order}`, "ada"), forbidden],
    ["a process, for a guest", ({ order }) => get(`/ops/sagas/${order}`, "guest"), forbidden],
    ["a process, for nobody", ({ order }) => get(`/ops/sagas/${order}`), unauthenticated],
    ["no assessments", get("/ops/risk/assessments?limit=0", "admin"), invalid("limit")],
    ["too many assessments", get("/ops/risk/assessments?limit=101", "admin"), invalid("limit")],
    ["assessments of another decision", get("/ops/risk/assessments?decision=perhaps", "admin"), invalid("decision")],
    [
      "assessments behind the cursor of another list",
      get(`/ops/risk/assessments?${cursor({ orderId: "ORDER-1" })}`, "admin"),
      invalidValue("cursor")
    ],
    ["assessments, for a shopper", get("/ops/risk/assessments", "ada"), forbidden],
    ["assessments, for nobody", get("/ops/risk/assessments"), unauthenticated],
    [
      "an assessment that is not there",
      get("/ops/risk/assessments/RISK-NONE", "admin"),
      { status: 404, code: "assessment_not_found" }
    ],
    ["an assessment that cannot be", get(`/ops/risk/assessments/${"x".repeat(65)}`, "admin"), invalid("assessmentId")],
    ["an assessment, for a shopper", get("/ops/risk/assessments/RISK-NONE", "ada"), forbidden]
  ])
})

describe("a token that", () => {
  const bearing = (authorization: string): Request => get("/api/v1/orders", "nobody", { authorization })
  const names = [
    "is no token",
    "has no signature",
    "has a changed signature",
    "has changed claims",
    'is "signed" with alg none',
    "is signed with HS256",
    "is signed with a key of another",
    "names a key that is not there",
    "has expired",
    "is for services among each other"
  ]
  refused([
    ...names.map((name): Case => [name, ({ forged }) => bearing(`Bearer ${forged[name] ?? ""}`), unauthenticated]),
    [
      "has expired, to change something",
      ({ forged }) => ({
        ...addProduct({}),
        as: "nobody",
        headers: { authorization: `Bearer ${forged["has expired"] ?? ""}` }
      }),
      unauthenticated
    ],
    ["is good, of another scheme", ({ tokens }) => bearing(`Basic ${tokens.admin ?? ""}`), unauthenticated],
    ["is good, of no scheme", ({ tokens }) => bearing(tokens.admin ?? ""), unauthenticated],
    [
      "is good, and another behind it",
      ({ tokens }) => bearing(`Bearer ${tokens.admin ?? ""} ${tokens.admin ?? ""}`),
      unauthenticated
    ],
    ["is empty", bearing("Bearer "), unauthenticated],
    ["is SQL", bearing(`Bearer ${sql}`), unauthenticated],
    ["is 10,000 characters long", bearing(`Bearer ${"x".repeat(10_000)}`), unauthenticated],
    ["is missing, to change something", { ...addProduct({}), as: "nobody" }, unauthenticated],
    ["is missing, with a body that is wrong as well", { method: "POST", path: products, raw: "{" }, unauthenticated],
    [
      "is a guest's, to order",
      place(({ product }) => ({ items: [{ productId: product, qty: 1 }] }), "guest"),
      forbidden
    ],
    ["is a guest's, to see orders", get("/api/v1/orders", "guest"), forbidden],
    ["is a guest's, to read notifications", get("/api/v1/notifications", "guest"), forbidden],
    ["is a shopper's, to add products", { ...addProduct({}), as: "ada" }, forbidden],
    [
      "is a shopper's, to change stock",
      ({ product }) => ({
        method: "POST",
        path: `/api/v1/inventory/${product}/adjustments`,
        as: "ada",
        json: { delta: 5, reason: "mine" }
      }),
      forbidden
    ],
    [
      "is a shopper's, to hand over an order",
      ({ order }) => ({ method: "POST", path: `/api/v1/orders/${order}/fulfil`, as: "ada" }),
      forbidden
    ]
  ])
})

describe("what is somebody else's", () => {
  const noCart: Refusal = { status: 404, code: "cart_not_found" }
  const noOrder: Refusal = { status: 404, code: "order_not_found" }
  refused([
    ["an order", ({ order }) => get(`/api/v1/orders/${order}`, "eve"), noOrder],
    ["an order, for a guest", ({ order }) => get(`/api/v1/orders/${order}`, "guest"), noOrder],
    ["an order's history", ({ order }) => get(`/api/v1/orders/${order}/history`, "eve"), noOrder],
    [
      "an order to cancel",
      ({ order }) => ({ method: "POST", path: `/api/v1/orders/${order}/cancel`, as: "eve" }),
      { status: 403, code: "not_your_order" }
    ],
    ["a cart", ({ cart }) => get(`/api/v1/carts/${cart}`, "eve"), noCart],
    ["a cart, for an administrator", ({ cart }) => get(`/api/v1/carts/${cart}`, "admin"), noCart],
    ["a guest's cart", ({ guestCart }) => get(`/api/v1/carts/${guestCart}`, "ada"), noCart],
    ["a guest's cart, without the token", ({ guestCart }) => get(`/api/v1/carts/${guestCart}`), unauthenticated],
    [
      "a cart to fill",
      ({ cart, product }) => ({
        method: "PUT",
        path: `/api/v1/carts/${cart}/items/${product}`,
        as: "eve",
        json: { qty: 9 }
      }),
      noCart
    ],
    [
      "a cart to empty",
      ({ cart, product }) => ({ method: "DELETE", path: `/api/v1/carts/${cart}/items/${product}`, as: "guest" }),
      noCart
    ],
    [
      "a cart to merge into",
      ({ cart, tokens }) => ({
        method: "POST",
        path: `/api/v1/carts/${cart}/merge`,
        as: "eve",
        json: { guestToken: tokens.guest }
      }),
      noCart
    ],
    [
      "a user's cart to take over as a guest's",
      ({ cart, tokens }) => ({
        method: "POST",
        path: `/api/v1/carts/${cart}/merge`,
        as: "ada",
        json: { guestToken: tokens.eve }
      }),
      { status: 422, code: "invalid_guest_token" }
    ]
  ])
})

describe("numbers and reasons of stock that make no sense", () => {
  const adjust =
    (json: Json, productId?: string) =>
    ({ product }: World): Request => ({
      method: "POST",
      path: `/api/v1/inventory/${productId ?? product}/adjustments`,
      as: "admin",
      json: { delta: 1, reason: "count", ...json }
    })
  refused([
    ["no change", adjust({ delta: 0 }), invalid("delta")],
    ["half a unit", adjust({ delta: 0.5 }), invalid("delta")],
    ["a number as text", adjust({ delta: "1" }), invalid("delta")],
    ["too many", adjust({ delta: 1_000_001 }), invalid("delta")],
    ["too few", adjust({ delta: -1_000_001 }), invalid("delta")],
    ["an empty reason", adjust({ reason: "" }), invalid("reason")],
    ["a reason with U+0000", adjust({ reason: "a\u0000" }), invalid("reason")],
    ["more taken away than there is", adjust({ delta: -6 }), { status: 409, code: "stock_would_be_negative" }],
    ["a product that is not there", adjust({}, "PROD-NONE"), { status: 404, code: "product_not_found" }]
  ])
})

describe("people that cannot be", () => {
  const register = (fields: Json): Request => ({
    method: "POST",
    path: "/api/v1/customers",
    json: { email: "new@example.org", password: "long enough", name: "New", ...fields }
  })
  const signIn = (json: Json): Request => ({ method: "POST", path: "/api/v1/sessions", json })
  refused([
    ...[
      "",
      "@",
      "a",
      "a@b",
      "a b@example.org",
      "a@example..org",
      "a@-example.org",
      `${"x".repeat(250)}@b.co`,
      "a@b.co\u0000",
      "ä@b.co",
      sql
    ].map(
      (email): Case => [`the address ${JSON.stringify(email.slice(0, 30))}`, register({ email }), invalid("email")]
    ),
    ["a password that is too short", register({ password: "1234567" }), invalid("password")],
    ["a password that is too long", register({ password: "x".repeat(129) }), invalid("password")],
    ["a password that is a number", register({ password: 12345678 }), invalid("password")],
    ["a name with half a surrogate pair", register({ name: "\ud800" }), invalid("name")],
    ["a region that is not there", register({ region: "moon" }), invalid("region")],
    ["somebody who says they are an administrator", register({ role: "admin" }), invalid("role")],
    ["an address that is taken", register({ email: "ADA@Example.org" }), { status: 409, code: "email_taken" }],
    [
      "SQL as an address to sign in",
      signIn({ email: sql, password: "long enough" }),
      { status: 401, code: "invalid_credentials" }
    ],
    [
      "SQL as a password",
      signIn({ email: "ada@example.org", password: "' or '1'='1" }),
      { status: 401, code: "invalid_credentials" }
    ],
    ["an operator as a password", signIn({ email: "ada@example.org", password: { $ne: null } }), invalid("password")],
    ["no password", signIn({ email: "ada@example.org" }), invalid("password")],
    [
      "SQL as a refresh token",
      { method: "POST", path: "/api/v1/sessions/refresh", json: { refreshToken: sql } },
      { status: 401, code: "invalid_refresh_token" }
    ],
    [
      "a refresh token that is too long",
      { method: "POST", path: "/api/v1/sessions/refresh", json: { refreshToken: "x".repeat(1_025) } },
      invalid("refreshToken")
    ]
  ])
})

describe("a query that makes no sense", () => {
  const list = (query: string, of = products, as: Caller = "nobody") => get(`${of}?${query}`, as)
  refused([
    ...[
      "0",
      "101",
      "-1",
      "1.5",
      "abc",
      "",
      "1e1",
      "0x10",
      "%2B5",
      "%205",
      "007",
      "9".repeat(400),
      "NaN",
      "%00",
      "1;2"
    ].map((limit): Case => [`limit=${limit.slice(0, 20)}`, list(`limit=${limit}`), invalid("limit")]),
    ["two limits", list("limit=1&limit=2"), invalid("limit")],
    ["a thousand limits", list(Array.from({ length: 1_000 }, () => "limit=1").join("&")), invalid("limit")],
    [
      "a limit among 900 other things",
      list(`${Array.from({ length: 900 }, (_, nth) => `a${nth}=1`).join("&")}&limit=0`),
      invalid("limit")
    ],
    ["a limit behind __proto__", list("__proto__[limit]=5&__proto__=1&constructor=1&limit=0"), invalid("limit")],
    ["an empty cursor", list("cursor="), invalidValue("cursor")],
    ["a cursor that is no base64", list("cursor=%25%25%25"), invalidValue("cursor")],
    ["a cursor of another list", list(cursor({ orderId: "ORDER-1" })), invalidValue("cursor")],
    [
      "a cursor of another list, of orders",
      list(cursor({ productId: "P1" }), "/api/v1/orders", "ada"),
      invalidValue("cursor")
    ],
    ["a cursor with SQL", list(cursor({ productId: sql })), invalidValue("cursor")],
    ["SQL as a cursor", list(`cursor=${encodeURIComponent(sql)}`), invalidValue("cursor")],
    ["a cursor that is too long", list(`cursor=${"a".repeat(513)}`), invalid("cursor")],
    ["two cursors", list("cursor=a&cursor=b"), invalid("cursor")],
    ["a cursor of a search, without a rank", list(`q=milk&${cursor({ productId: "P1" })}`), invalidValue("cursor")],
    [
      "a cursor of a search, with a rank as text",
      list(`q=milk&${cursor({ rank: "1", productId: "P1" })}`),
      invalidValue("cursor")
    ],
    [
      "a cursor of prices at half a revision",
      ({ product }) => list(cursor({ revision: 1.5 }), `${products}/${product}/prices`),
      invalidValue("cursor")
    ],
    [
      "a cursor of notifications beyond all time",
      list(cursor({ createdAt: 1e300, notificationId: "N" }), "/api/v1/notifications", "ada"),
      invalidValue("cursor")
    ],
    [
      "a cursor of notifications before all time",
      list(cursor({ createdAt: -8_640_000_000_000_000, notificationId: "N" }), "/api/v1/notifications", "ada"),
      invalidValue("cursor")
    ],
    ["a search that is too long", list(`q=${"a".repeat(201)}`), invalid("q")],
    ["a search with U+0000", list("q=a%00"), invalid("q")],
    ["two searches", list("q=a&q=b"), invalid("q")],
    ["a category with U+0000", list("category=%00"), invalid("category")],
    ["a category that is too long", list(`category=${"a".repeat(101)}`), invalid("category")]
  ])
})

describe("an address that leads nowhere", () => {
  refused([
    ["an id that is too long", get(`${products}/${"x".repeat(65)}`), invalid("productId")],
    ["an id that is far too long", get(`${products}/${"x".repeat(5_000)}`), notFound],
    ["SQL as an id", get(`${products}/${encodeURIComponent(sql)}`), invalid("productId")],
    ["SQL as the id of stock", get(`/api/v1/inventory/${encodeURIComponent("1' or '1'='1")}`), invalid("productId")],
    ["SQL as the id of an order", get(`/api/v1/orders/${encodeURIComponent(sql)}`, "ada"), invalid("orderId")],
    ["SQL as the id of a cart", get(`/api/v1/carts/${encodeURIComponent(sql)}`, "ada"), invalid("cartId")],
    ["an id with U+0000", get(`${products}/a%00b`), invalid("productId")],
    ["an id with a line break", get(`${products}/PROD-1%0A`), invalid("productId")],
    ["an id with a slash", get(`${products}/..%2F..%2Fetc%2Fpasswd`), invalid("productId")],
    ["an id with letters of other scripts", get(`${products}/%E2%84%AA`), invalid("productId")],
    ["half a percent sign", get(`${products}/%`), notFound],
    ["a percent sign with no number", get(`${products}/%zz`), notFound],
    ["percent signs that are not UTF-8", get(`${products}/%ff%fe`), notFound],
    ["an address nobody knows", get("/api/v1/nothing"), notFound],
    [
      "an address nobody knows, with a body",
      { method: "POST", path: "/api/v1/nothing", as: "admin", json: good },
      notFound
    ],
    ["the way between services", { method: "POST", path: "/rpc/orders", as: "admin", raw: "x" }, notFound],
    [
      "a method that is not there",
      { method: "DELETE", path: products, as: "admin" },
      { status: 405, code: "method_not_allowed" }
    ],
    [
      "a method nobody knows",
      { method: "PURGE", path: products, as: "admin" },
      { status: 405, code: "method_not_allowed" }
    ],
    [
      "a method in disguise",
      get(`${products}/PROD-NONE?_method=DELETE`, "admin", { "x-http-method-override": "DELETE" }),
      { status: 404, code: "product_not_found" }
    ]
  ])
})

describe("headers that make no sense", () => {
  const reprice =
    (ifMatch: string) =>
    ({ product }: World): Request => ({
      method: "PUT",
      path: `${products}/${product}/price`,
      as: "admin",
      json: { price: 2, currency: "USD", reason: "late" },
      headers: { "if-match": ifMatch }
    })
  const change =
    (ifMatch: string) =>
    ({ product }: World): Request => ({
      method: "PATCH",
      path: `${products}/${product}`,
      as: "admin",
      json: { name: "Changed" },
      headers: { "if-match": ifMatch }
    })
  refused([
    ["an If-Match that is no tag", change("nonsense"), invalidValue("If-Match")],
    ["an empty If-Match", change(""), invalidValue("If-Match")],
    ["an If-Match without quotes", change("1"), invalidValue("If-Match")],
    ["a weak If-Match", change('W/"1"'), invalidValue("If-Match")],
    ["an If-Match of several", change('"1", "2"'), invalidValue("If-Match")],
    ["an If-Match with SQL", change(`"${sql}"`), invalidValue("If-Match")],
    ["an If-Match of 10^30", change(`"1${"0".repeat(30)}"`), invalidValue("If-Match")],
    ["an If-Match of another version", change('"999999999"'), { status: 412, code: "version_conflict" }],
    ["an If-Match of a price that is no tag", reprice("nonsense"), invalidValue("If-Match")],
    ["an If-Match of a price of another version", reprice('"2"'), { status: 412, code: "version_conflict" }],
    [
      "a Correlation-Id with SQL",
      get(`${products}/PROD-NONE`, "nobody", { "correlation-id": sql }),
      { status: 404, code: "product_not_found" }
    ],
    [
      "a traceparent with SQL",
      get(`${products}/PROD-NONE`, "nobody", { traceparent: sql }),
      { status: 404, code: "product_not_found" }
    ]
  ])
})

describe("what is not even HTTP, or too much of it, is refused before anything sees it", () => {
  /** Sends bytes as they are; the first line of what comes back. */
  const raw = (request: string) =>
    new Promise<string>((resolve) => {
      const { hostname, port } = new URL(shop().url)
      const socket = connect(Number(port), hostname)
      let answer = ""
      socket.setTimeout(5_000, () => socket.destroy())
      socket.on("data", (data) => {
        answer += data.toString("latin1")
      })
      socket.on("error", () => {})
      socket.on("close", () => resolve(answer.split("\r\n", 1)[0] ?? ""))
      socket.write(request, "latin1")
    })
  const post = (...lines: ReadonlyArray<string>) =>
    ["POST /api/v1/orders HTTP/1.1", "host: shop", "content-type: application/json", ...lines, "", ""].join("\r\n")
  const cases: ReadonlyArray<readonly [name: string, request: string, status: number]> = [
    ["a header of 20,000 characters", post(`x: ${"x".repeat(20_000)}`), 431],
    ["500 headers", post(...Array.from({ length: 500 }, (_, nth) => `x-${nth}: 1`)), 431],
    ["an address of 20,000 characters", `GET /${"x".repeat(20_000)} HTTP/1.1\r\nhost: shop\r\n\r\n`, 431],
    ["10,000 parameters", `GET /api/v1/products?${"a=1&".repeat(10_000)} HTTP/1.1\r\nhost: shop\r\n\r\n`, 431],
    ["no HTTP", "HELLO\r\n\r\n", 400],
    ["no host", "GET /api/v1/products HTTP/1.1\r\n\r\n", 400],
    ["a control character in an Idempotency-Key", post("idempotency-key: a\u0001b", "content-length: 2"), 400],
    ["U+0000 in a header", post("correlation-id: a\u0000b", "content-length: 2"), 400],
    ["two lengths", post("content-length: 2", "content-length: 5"), 400],
    ["a length and chunks", post("content-length: 2", "transfer-encoding: chunked"), 400],
    ["a length below zero", post("content-length: -1"), 400],
    ["a length that is no number", post("content-length: two"), 400]
  ]
  for (const [name, request, status] of cases) {
    test(name, async () => {
      expect(await raw(request)).toStartWith(`HTTP/1.1 ${status} `)
      expect(changedTables(await shop().fingerprint())).toEqual([])
    })
  }
})

describe("after all of this", () => {
  test("nothing went wrong that nobody foresaw", () => {
    expect(shop().output).not.toContain('"level":"ERROR"')
  })

  test("the same requests without their mistakes are good", async () => {
    const { cart, order, product } = present()
    expect((await send(addProduct({}))).status).toBe(201)
    expect(
      (
        await send(
          addRaw(JSON.stringify({ ...good, sku: "NEW-2" }), { "content-type": "Application/JSON; charset=utf-8" })
        )
      ).status
    ).toBe(201)
    expect(
      (
        await send(
          addRaw(withField("sku", '"NEW-3"').replace("Bread", '\\ud83c\\udf5e {[\\"twice\\":'), {
            "content-encoding": "identity"
          })
        )
      ).status
    ).toBe(201)
    expect(
      (await send(place({ items: [{ productId: product, qty: 5 }], currency: "USD", expectedTotal: 5 })(present())))
        .status
    ).toBe(201)
    const paid = await send({
      method: "POST",
      path: `/api/v1/orders/${order}/pay`,
      as: "ada",
      json: { paymentToken: "tok_ok", rail: "card" },
      headers: { "idempotency-key": "k".repeat(255) }
    })
    expect([paid.status, paid.body["status"]]).toEqual([200, "PAID"])
    const refilled = await send({
      method: "POST",
      path: `/api/v1/inventory/${product}/adjustments`,
      as: "admin",
      json: { delta: 1, reason: "delivery" }
    })
    expect(refilled.status).toBe(201)
    const bought = await send({
      method: "POST",
      path: "/api/v1/checkout",
      as: "ada",
      json: { cartId: cart, paymentToken: "tok_ok", rail: "card", expectedTotal: 1 },
      headers: { "idempotency-key": "b".repeat(255), "x-device-id": "d".repeat(128) }
    })
    expect([bought.status, bought.body["status"]]).toEqual([201, "PAID"])
    for (const path of [`/ops/sagas/${order}`, "/ops/risk/assessments?limit=100&decision=allow"]) {
      expect((await send(get(path, "admin"))).status).toBe(200)
    }
    expect((await send(get(`${products}?limit=100&q=bread&category=Bakery`))).status).toBe(200)
  })
})
