// The policy on a real OPA: what it is made of, what it decides, and a shop that asks it.
import { afterAll, describe, expect, test } from "bun:test"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { ConfigProvider, Effect, Layer } from "effect"
import { Authorizer } from "@merkato/infra/authorizer/Authorizer"
import * as AuthorizerWhereNamed from "@merkato/infra/authorizer/AuthorizerWhereNamed"
import { Policies } from "@merkato/infra/policy/Policies"
import { cases } from "../packages/infra/test/Authorizer.cases.ts"
import { built, folder as policy, rego, wasm } from "../scripts/build-policy.ts"
import { opaIn } from "../scripts/server/Opa.ts"
import { run } from "../scripts/server/Server.ts"
import * as Servers from "../scripts/server/Servers.ts"
import { invalidCancellationsAreDenied } from "./support/Cancellations.ts"
import { temporaryFolder } from "./support/Processes.ts"
import { realServer } from "./support/RealServer.ts"
import { servedShop } from "./support/ServedShop.ts"

const what = "the policy on a real OPA, and a shop that asks it"
const program = opaIn(Servers.defaultCache())
const opa = process.env["CI"] === "true" && !existsSync(program) ? undefined : await realServer("opa", what)
afterAll(() => opa?.stop())

// To build it is more work than this whole file; the same table is put to the wasm in each run.
if (opa === undefined && process.env["CI"] === "true") console.log(`NOT RUN (nightly): ${what}: bun run nightly:opa`)

const folder = temporaryFolder()
const limits = join(folder.path, "limits.json")
// What is not decided in time is denied, and the machine may be busy.
const patient = { "authorizer.decide": { deadlineMs: 60_000, attemptTimeoutMs: 30_000 } }
writeFileSync(limits, JSON.stringify(patient))
afterAll(folder.remove)

const settings = { ...opa?.settings, MERKATO_POLICIES: limits }

describe.skipIf(opa === undefined)("the policy in Rego", () => {
  test("passes its own tests", async () => {
    const { code, output } = await run([program, "test", "--verbose", policy])
    expect([code, output]).toEqual([0, expect.stringMatching(/^PASS: (\d+)\/\1$/m)])
  })

  test("is what the wasm was made of", async () => {
    expect(Buffer.from(await built(program)).equals(readFileSync(wasm))).toBe(true)
  })

  test("decides on a server as the rules in TypeScript do", () =>
    Effect.gen(function* () {
      const { decide } = yield* Authorizer
      const told = yield* Effect.forEach(
        cases,
        ({ expected: _, ...question }) => Effect.map(decide(question), (expected) => ({ ...question, expected })),
        { concurrency: 16 }
      )
      expect(told).toEqual([...cases])
    }).pipe(
      Effect.provide(
        AuthorizerWhereNamed.layer.pipe(
          Layer.provide(Policies.layerWith(patient)),
          Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(settings)))
        )
      ),
      Effect.runPromise
    ))
})

describe.skipIf(opa === undefined)("a shop that asks an OPA", () => {
  const shop = servedShop(() => settings)

  test("denies invalid cancellations", () => invalidCancellationsAreDenied(shop()), 60_000)

  test("obeys a policy from the moment it is another one", async () => {
    const address = `${opa?.settings["OPA_URL"]}/v1/policies/${encodeURIComponent(rego.slice(1))}`
    const put = async (text: string) => expect((await fetch(address, { method: "PUT", body: text })).status).toBe(200)
    const text = readFileSync(rego, "utf8")
    const ada = await shop().as("ADA")
    await put(text.replace(`"order.list": {"shopper", "admin"}`, `"order.list": {"admin"}`))
    expect((await ada.get("/api/v1/orders")).body["code"]).toBe("forbidden")
    await put(text)
    expect((await ada.get("/api/v1/orders")).status).toBe(200)
  })

  test("lets nobody through while OPA is away, keeps no refusal, and goes on when it is back", async () => {
    const ada = await shop().as("ADA")
    const tea = await shop().product(3)
    const order = () => ada.post("/api/v1/orders", { items: [{ productId: tea, qty: 1 }] }, { key: "while-away" })
    opa?.kill()
    const denied = await order()
    expect([denied.status, denied.body["code"]]).toEqual([503, "service_unavailable"])
    expect(Number(denied.headers.get("retry-after"))).toBeGreaterThan(0)
    expect((await ada.get("/api/v1/orders")).status).toBe(503)
    expect((await shop().anyone.get(`/api/v1/products/${tea}`)).status).toBe(200)
    expect((await shop().anyone.get(`/api/v1/inventory/${tea}`)).body).toMatchObject({ onHand: 3, reserved: 0 })
    await opa?.start()
    const placed = await ada.persist(order)
    expect([placed.status, placed.headers.get("idempotent-replayed")]).toEqual([201, null])
  })
})
