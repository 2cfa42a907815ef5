import { describe, expect, test } from "bun:test"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ConfigProvider, Effect, Exit, Layer } from "effect"
import { Forbidden } from "@merkato/domain/kernel/Problem"
import { anonymous, RequestContext } from "@merkato/domain/kernel/RequestContext"
import { authorize, Authorizer } from "../src/authorizer/Authorizer.ts"
import * as AuthorizerWhereNamed from "../src/authorizer/AuthorizerWhereNamed.ts"
import { Policies } from "../src/policy/Policies.ts"
import { cases } from "./Authorizer.cases.ts"

/** Who decides under these variables. */
const named = (environment: Readonly<Record<string, string>>) =>
  AuthorizerWhereNamed.layer.pipe(
    Layer.provide(Policies.layerWith({})),
    Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(environment)))
  )

const sides = [
  { side: "the rules in TypeScript", environment: {} },
  { side: "the policy as wasm", environment: { OPA_WASM: "built-in" } }
]

for (const { side, environment } of sides) {
  describe(`permission, by ${side}`, () => {
    const deciding = <A, E>(effect: Effect.Effect<A, E, Authorizer>) =>
      effect.pipe(Effect.provide(named(environment)), Effect.runPromise)

    test("is given by role, action, owner and status, and denied to everything that is not in the table", () =>
      Effect.gen(function* () {
        const { decide } = yield* Authorizer
        expect(cases).toHaveLength(21 * 5 * 3 * 6)
        for (const { expected, ...question } of cases) {
          expect({ ...question, verdict: yield* decide(question) }).toEqual({ ...question, verdict: expected })
        }
      }).pipe(deciding))

    test("is asked for whoever calls, and what is denied is Forbidden, with the action in it", () =>
      Effect.gen(function* () {
        for (const { action, principal, resource, expected } of cases) {
          const exit = yield* Effect.exit(authorize(action, resource)).pipe(
            Effect.provideService(RequestContext, { principal, correlationId: "", traceParent: "" })
          )
          expect(exit).toEqual(expected === "allowed" ? Exit.succeed(undefined) : Exit.fail(new Forbidden({ action })))
        }
      }).pipe(deciding))

    test("is nobody's for the asking: an owner without a name is not the same as no owner", () =>
      Effect.gen(function* () {
        const { decide } = yield* Authorizer
        const resource = { ownerId: anonymous.userId }
        expect(yield* decide({ principal: anonymous, action: "cart.use", resource })).toBe("forbidden")
      }).pipe(deciding))
  })
}

describe("a shop whose policy cannot decide does not open", () => {
  const refusal = (environment: Readonly<Record<string, string>>) =>
    Effect.asVoid(Authorizer).pipe(
      Effect.provide(named(environment)),
      Effect.flip,
      Effect.map(({ message }) => message),
      Effect.runPromise
    )

  test("when its file is not there, or is no policy", async () => {
    const folder = mkdtempSync(join(tmpdir(), "merkato-policy-"))
    try {
      const path = join(folder, "policy.wasm")
      expect(await refusal({ OPA_WASM: path })).toBe(`OPA_WASM cannot be used: ${path}: it cannot be read`)
      writeFileSync(path, "no wasm at all")
      expect(await refusal({ OPA_WASM: path })).toStartWith(`OPA_WASM cannot be used: ${path}: `)
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })

  test("when it is told to ask two", async () => {
    expect(await refusal({ OPA_WASM: "built-in", OPA_URL: "http://127.0.0.1:1" })).toBe(
      "OPA_WASM cannot be used: OPA_URL is named as well"
    )
  })

  test("when its server is not there, or is something else, or has a policy that knows less than the shop", async () => {
    const answers: Array<unknown> = [{ result: ["product.write"] }, {}, "<html>"]
    const server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => Response.json(answers.shift()) })
    const address = `127.0.0.1:${server.port}`
    const said = (reason: string) => `OPA_URL cannot be used: ${address}: ${reason}`
    const OPA_URL = `http://${address}`
    try {
      expect(await refusal({ OPA_URL: "127.0.0.1:8181" })).toBe(
        "OPA_URL cannot be used: expected http://host:port or https://host"
      )
      expect(await refusal({ OPA_URL })).toStartWith(said("its policy knows nothing of price.override, "))
      expect(await refusal({ OPA_URL })).toBe(said("it has no policy merkato/authz/actions"))
      expect(await refusal({ OPA_URL })).toStartWith(said(""))
    } finally {
      await server.stop(true)
    }
    expect(await refusal({ OPA_URL })).toStartWith(said(""))
  })
})

test("the wasm is that of the Rego beside it", () => {
  const policy = new URL("../src/authorizer/policy/", import.meta.url).pathname
  const lines = readFileSync(join(policy, "authz.sha256"), "utf8").split("\n")
  for (const [nth, file] of ["authz.rego", "authz.wasm"].entries()) {
    const sum = new Bun.CryptoHasher("sha256").update(readFileSync(join(policy, file))).digest("hex")
    // After a change of the policy: bun scripts/build-policy.ts
    expect(lines[nth]).toBe(`${sum}  ${file}`)
  }
})
