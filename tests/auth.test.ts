import { describe, expect, test } from "bun:test"
import { type Answer, text } from "./support/Client.ts"
import { restShop } from "./support/RestShop.ts"

const shop = restShop()

const password = "correct horse battery staple 8472"
let people = 0

const register = async (fields: Readonly<Record<string, unknown>> = {}) => {
  const email = `person${++people}@example.org`
  const answer = await shop().anyone.post("/api/v1/customers", { email, password, name: "Ada Byron", ...fields })
  return { email, answer }
}

const signIn = (email: string, secret = password) => shop().anyone.post("/api/v1/sessions", { email, password: secret })

const refresh = (refreshToken: string) => shop().anyone.post("/api/v1/sessions/refresh", { refreshToken })

const refusal = ({ status, body }: Answer) => [status, body["code"]]

/** What is in a token; nobody but the shop needs to believe it. */
const claimsOf = (token: string): Readonly<Record<string, unknown>> =>
  JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString())

describe("registration", () => {
  test("gives a user, who can sign in with any spelling of the address", async () => {
    const { email, answer } = await register()
    expect(answer.status).toBe(201)
    const userId = text(answer, "userId")
    expect(answer.body).toEqual({ userId: expect.stringMatching(/^USER-[0-9a-f-]{36}$/) })
    const session = await signIn(email.toUpperCase())
    expect([session.status, session.body]).toEqual([
      201,
      { userId, accessToken: expect.any(String), refreshToken: expect.any(String), expiresIn: 900 }
    ])
    expect(session.headers.get("cache-control")).toBe("no-store")
  })

  test("is refused for an address that is taken, in whatever case, and one of several at once wins", async () => {
    const { email } = await register()
    expect(refusal((await register({ email })).answer)).toEqual([409, "email_taken"])
    expect(refusal((await register({ email: email.toUpperCase() })).answer)).toEqual([409, "email_taken"])
    const racers = ["Race@example.org", "rAce@example.org", "raCe@example.org", "racE@example.org"]
    const answers = await Promise.all(racers.map((racer) => register({ email: racer })))
    expect(answers.map(({ answer }) => answer.status).toSorted()).toEqual([201, 409, 409, 409])
  })

  test("puts the region into the token; us when none is said", async () => {
    for (const [region, expected] of [
      ["eu", "eu"],
      ["br", "br"],
      [undefined, "us"]
    ] as const) {
      const { email } = await register(region === undefined ? {} : { region })
      const claims = claimsOf(text(await signIn(email), "accessToken"))
      expect(claims).toMatchObject({ region: expected, role: "shopper", iss: "merkato", aud: "merkato" })
    }
    expect(refusal((await register({ region: "mars" })).answer)).toEqual([400, "validation_failed"])
  })

  test("takes passwords of 8 to 128 characters, and cannot be used to become an administrator", async () => {
    for (const wrong of ["short12", "x".repeat(129), 12345678, "nul\u0000character"]) {
      expect(refusal((await register({ password: wrong })).answer)).toEqual([400, "validation_failed"])
    }
    expect(refusal((await register({ role: "admin" })).answer)).toEqual([400, "validation_failed"])
    expect((await register({ password: "x".repeat(128) })).answer.status).toBe(201)
    const secret = "пароль из кириллицы 🔑"
    const { email } = await register({ password: secret })
    expect((await signIn(email, secret)).status).toBe(201)
    expect((await signIn(email, secret.slice(0, -1))).status).toBe(401)
  })
})

describe("signing in", () => {
  test("fails in the same way for a wrong password, an unknown address and what is none", async () => {
    const { email } = await register()
    const strip = ({ status, headers, body }: Answer) => ({
      status,
      headers: [...headers.keys()].toSorted(),
      body: { ...body, traceId: "" }
    })
    const wrong = strip(await signIn(email, "not the password"))
    expect(wrong).toMatchObject({ status: 401, body: { code: "invalid_credentials" } })
    expect(strip(await signIn("nobody@example.org"))).toEqual(wrong)
    expect(strip(await signIn("no address at all"))).toEqual(wrong)
    expect(strip(await signIn(email, "short"))).toEqual(wrong)
    expect(strip(await signIn(`${email}\u0000`))).toEqual(wrong)
    expect(strip(await signIn(email, ""))).toEqual(wrong)
  })

  test("gives a token that the shop believes", async () => {
    const { email, answer } = await register()
    const token = text(await signIn(email), "accessToken")
    const made = await shop().anyone.as(token).post("/api/v1/carts")
    expect([made.status, made.body["userId"]]).toEqual([201, text(answer, "userId")])
  })
})

describe("a session", () => {
  test("goes on with a refresh token that works once", async () => {
    const { email, answer } = await register()
    const first = await signIn(email)
    const second = await refresh(text(first, "refreshToken"))
    expect([second.status, second.body]).toEqual([
      201,
      {
        userId: text(answer, "userId"),
        accessToken: expect.any(String),
        refreshToken: expect.any(String),
        expiresIn: 900
      }
    ])
    expect(text(second, "refreshToken")).not.toBe(text(first, "refreshToken"))
    expect(claimsOf(text(second, "accessToken"))["sid"]).toBe(claimsOf(text(first, "accessToken"))["sid"])
    expect((await refresh(text(second, "refreshToken"))).status).toBe(201)
  })

  test("ends when a used token comes again: somebody has a copy; other sessions go on", async () => {
    const { email } = await register()
    const first = await signIn(email)
    const other = await signIn(email)
    const second = await refresh(text(first, "refreshToken"))
    expect(second.status).toBe(201)
    expect(refusal(await refresh(text(first, "refreshToken")))).toEqual([401, "invalid_refresh_token"])
    expect(refusal(await refresh(text(second, "refreshToken")))).toEqual([401, "invalid_refresh_token"])
    expect((await refresh(text(other, "refreshToken"))).status).toBe(201)
  })

  test("that is refreshed twice at the same time gives one token at most", async () => {
    const { email } = await register()
    const first = await signIn(email)
    const answers = await Promise.all(Array.from({ length: 5 }, () => refresh(text(first, "refreshToken"))))
    expect(answers.filter(({ status }) => status === 201).length).toBe(1)
    expect(answers.filter(({ status }) => status === 401).length).toBe(4)
  })

  test("ends with signing out, and only that one", async () => {
    const { email } = await register()
    const first = await signIn(email)
    const other = await signIn(email)
    const ada = shop().anyone.as(text(first, "accessToken"))
    expect((await ada.request("DELETE", "/api/v1/sessions")).status).toBe(204)
    expect((await ada.request("DELETE", "/api/v1/sessions")).status).toBe(204)
    expect(refusal(await refresh(text(first, "refreshToken")))).toEqual([401, "invalid_refresh_token"])
    expect((await refresh(text(other, "refreshToken"))).status).toBe(201)
    expect(refusal(await shop().anyone.request("DELETE", "/api/v1/sessions"))).toEqual([401, "unauthenticated"])
  })

  test("cannot be gone on with by guessing", async () => {
    for (const guess of ["", "x", "' or true --", "\u0000", "a".repeat(1_024)]) {
      expect(refusal(await refresh(guess))).toEqual([401, "invalid_refresh_token"])
    }
  })
})

describe("who may do what", () => {
  test("a shopper is no administrator", async () => {
    const { email } = await register()
    const ada = shop().anyone.as(text(await signIn(email), "accessToken"))
    const productId = await shop().product({}, 5)
    const price = { price: 2, currency: "USD" }
    const product = { sku: "HERS", name: "Hers", category: "Hers", ...price }
    const order = await ada.post("/api/v1/orders", { items: [{ productId, qty: 1 }] }, { key: "hers" })
    expect(order.status).toBe(201)
    const answers = [
      await ada.post("/api/v1/products", product),
      await ada.request("PATCH", `/api/v1/products/${productId}`, { body: { name: "Hers" } }),
      await ada.request("PUT", `/api/v1/products/${productId}/price`, { body: { ...price, reason: "sale" } }),
      await ada.post(`/api/v1/inventory/${productId}/adjustments`, { delta: 1_000, reason: "more" }),
      await ada.post(`/api/v1/orders/${text(order, "orderId")}/fulfil`),
      await ada.post(`/api/v1/orders/${text(order, "orderId")}/release`),
      await ada.post(`/api/v1/orders/${text(order, "orderId")}/reject`),
      await ada.get(`/ops/sagas/${text(order, "orderId")}`),
      await ada.get("/ops/risk/assessments"),
      await ada.get("/ops/risk/assessments/RISK-1"),
      await ada.get("/ops/policies")
    ]
    expect(answers.map(refusal)).toEqual(answers.map(() => [403, "forbidden"]))
    const read = await shop().anyone.get(`/api/v1/products/${productId}`)
    expect(read.body).toMatchObject({ price: 1, version: 1 })
    const levels = await shop().anyone.get(`/api/v1/inventory/${productId}`)
    expect(levels.body).toMatchObject({ onHand: 5, reserved: 1 })
  })

  test("a guest neither orders nor reads notifications", async () => {
    const cart = await shop().anyone.post("/api/v1/carts")
    const guest = shop().anyone.as(text(cart, "guestToken"))
    const productId = await shop().product({}, 1)
    const answers = [
      await guest.post("/api/v1/orders", { items: [{ productId, qty: 1 }] }, { key: "theirs" }),
      await guest.post("/api/v1/checkout", { cartId: text(cart, "cartId"), paymentToken: "tok_ok" }, { key: "theirs" }),
      await guest.post("/api/v1/orders/ORDER-1/release"),
      await guest.post("/api/v1/orders/ORDER-1/reject"),
      await guest.get("/ops/sagas/ORDER-1"),
      await guest.get("/ops/risk/assessments"),
      await guest.get("/api/v1/orders"),
      await guest.get("/api/v1/notifications"),
      await guest.request("DELETE", "/api/v1/sessions")
    ]
    expect(answers.map(refusal)).toEqual(answers.map(() => [403, "forbidden"]))
  })

  test("whatever changes something asks for a token first, and for a good body and a key afterwards", async () => {
    const productId = await shop().product()
    const { anyone } = shop()
    const answers = [
      await anyone.post("/api/v1/products", {}),
      await anyone.request("PATCH", `/api/v1/products/${productId}`, { body: {} }),
      await anyone.request("PUT", `/api/v1/products/${productId}/price`, { body: {} }),
      await anyone.post(`/api/v1/inventory/${productId}/adjustments`, {}),
      await anyone.request("PUT", `/api/v1/carts/CART-1/items/${productId}`, { body: {} }),
      await anyone.request("DELETE", `/api/v1/carts/CART-1/items/${productId}`),
      await anyone.post("/api/v1/carts/CART-1/merge", {}),
      await anyone.post("/api/v1/orders", {}),
      await anyone.post("/api/v1/orders/ORDER-1/pay", {}),
      await anyone.post("/api/v1/orders/ORDER-1/cancel"),
      await anyone.post("/api/v1/orders/ORDER-1/fulfil"),
      await anyone.post("/api/v1/checkout", {}),
      await anyone.post("/api/v1/orders/ORDER-1/release"),
      await anyone.post("/api/v1/orders/ORDER-1/reject"),
      await anyone.request("DELETE", "/api/v1/sessions")
    ]
    expect(answers.map(refusal)).toEqual(answers.map(() => [401, "unauthenticated"]))
  })

  test("a token that has expired is no obstacle where none is needed, and one where somebody could be meant", async () => {
    const expired = await shop().token("ADA", "admin", "us", -1)
    const late = shop().anyone.as(expired)
    const pages = ["/", "/?a=b", "/docs", "/openapi.json", "/healthz", "/readyz", "/metrics"]
    const statusOf = async (page: string) =>
      (await fetch(`${shop().url}${page}`, { headers: { authorization: `Bearer ${expired}` } })).status
    expect(await Promise.all(pages.map(statusOf))).toEqual(pages.map(() => 200))
    const { email } = await register()
    expect((await late.post("/api/v1/sessions", { email, password })).status).toBe(201)
    const others = ["/api/v1/products", "/ops/policies", "/docsy", "/healthz/x", "/metrics."]
    expect((await Promise.all(others.map((other) => late.get(other)))).map(refusal)).toEqual(
      others.map(() => [401, "unauthenticated"])
    )
  })

  test("what operators look at asks for a token, too", async () => {
    const { anyone } = shop()
    const answers = [
      await anyone.get("/ops/sagas/ORDER-1"),
      await anyone.get("/ops/risk/assessments"),
      await anyone.get("/ops/risk/assessments/RISK-1"),
      await anyone.get("/ops/policies")
    ]
    expect(answers.map(refusal)).toEqual(answers.map(() => [401, "unauthenticated"]))
  })

  test("a role that a token claims counts, not the one that the body or a header claims", async () => {
    const eve = await shop().as("EVE")
    const headers = { "merkato-principal": '{"userId":"EVE","role":"admin","region":"us"}', "x-role": "admin" }
    const refused = await eve.request("POST", "/api/v1/inventory/P1/adjustments", {
      body: { delta: 1, reason: "mine" },
      headers
    })
    expect(refusal(refused)).toEqual([403, "forbidden"])
  })
})

describe("secrets", () => {
  test("are neither in the log, nor in events, nor in any table", async () => {
    const secret = "hunter2-Zaphod-Beeblebrox"
    const { email } = await register({ password: secret })
    await signIn(email, `${secret} wrong`)
    await shop().anyone.request("POST", `/api/v1/customers?password=${secret}`, { body: { email, password: secret } })
    const session = await signIn(email, secret)
    const next = await refresh(text(session, "refreshToken"))
    await refresh(text(session, "refreshToken"))
    await shop().settled()
    const secrets = [
      secret,
      text(session, "accessToken"),
      text(session, "refreshToken"),
      text(next, "refreshToken"),
      text(next, "accessToken")
    ]
    const tables = await shop().rows(
      "select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"
    )
    expect(tables.length).toBeGreaterThan(30)
    for (const { name } of tables) {
      const found = secrets.map((each) => `t::text like '%${each}%'`).join(" or ")
      expect(
        await shop().rows(`select '${String(name)}' as leak, t::text as row from ${String(name)} t where ${found}`)
      ).toEqual([])
    }
    const events = await shop().rows(
      `select count(*)::int as n from identity.events where payload::text like '%${email}%'`
    )
    expect(events).toEqual([{ n: 0 }])
    // The log is there to be searched.
    expect(shop().output).toContain("A refresh token was used twice")
    for (const each of [...secrets, email]) expect(shop().output).not.toContain(each)
  })
})
