// What a real registry with Confluent's API does of what the shop asks, and what comes of a bad link to it.
import { describe, expect, test } from "bun:test"
import { Effect, Layer } from "effect"
import { allEvents } from "@merkato/domain/events"
import { registeredSchema } from "@merkato/domain/kernel/EventSchema"
import { OrderFulfilled } from "@merkato/domain/orders/OrderEvents"
import { type Link, through } from "../../../tests/support/Links.ts"
import { runToEnd } from "../../../tests/support/Processes.ts"
import { until } from "../../../tests/support/Until.ts"
import * as ConfluentSchemaRegistry from "../src/events/registry/ConfluentSchemaRegistry.ts"
import { Policies } from "../src/policy/Policies.ts"
import { schemaRegistryContract } from "./SchemaRegistry.contract.ts"

/** `link` leads to it; it is mended afterwards. */
export const registryContract = (registryUrl: string, link: Link): void => {
  const confluent = ConfluentSchemaRegistry.layer(registryUrl).pipe(Layer.provide(Policies.layerWith()))
  const level = async (set?: string): Promise<unknown> => {
    const body = JSON.stringify({ compatibility: set })
    const headers = { "content-type": "application/json" }
    if (set !== undefined) await fetch(`${registryUrl}/config`, { method: "PUT", headers, body })
    const { compatibilityLevel } = Object(await (await fetch(`${registryUrl}/config`)).json())
    return compatibilityLevel
  }
  const register = (args: ReadonlyArray<string> = [], url = registryUrl) =>
    runToEnd("merkato", ["contracts", "register", ...args], { SCHEMA_REGISTRY_URL: url })

  schemaRegistryContract("with Confluent's API", confluent)

  describe("a registry of schemas with Confluent's API", () => {
    test("is brought to BACKWARD for all subjects, and left alone where it is stricter", async () => {
      const open = () => Effect.runPromise(Effect.scoped(Layer.build(confluent)))
      expect(await level("NONE")).toBe("NONE")
      await open()
      expect(await level()).toBe("BACKWARD")
      expect(await level("FULL_TRANSITIVE")).toBe("FULL_TRANSITIVE")
      await open()
      expect(await level("BACKWARD")).toBe("BACKWARD")
    })

    test("gets the schemas by hand, too, and says which one it refuses", async () => {
      const done = await register()
      expect([done.code, done.stdout.trim()]).toEqual([0, `${allEvents.length} schemas are registered`])
      const { type } = OrderFulfilled
      const place = `${registryUrl}/subjects/${type}`
      const other = { ...registeredSchema(OrderFulfilled), properties: { orderId: { type: "integer" } } }
      await fetch(place, { method: "DELETE" })
      await fetch(`${place}/versions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ schemaType: "JSON", schema: JSON.stringify(other) })
      })
      for (const args of [["--check"], []]) {
        const refused = await register(args)
        expect([refused.code, refused.stdout]).toEqual([1, ""])
        expect(refused.stderr).toContain(`The schema registry refuses the schema of ${type}: `)
      }
      await fetch(place, { method: "DELETE" })
    })

    test("whose link is slow gets them all; who finds it silent or loses it is told, and begins anew", async () => {
      const linked = through(registryUrl, link)
      const path = (type: string) => `${registryUrl}/subjects/${type}`
      const isThere = async (type: string) => (await fetch(`${path(type)}/versions`)).ok
      const [first = "", ...others] = allEvents.map(({ type }) => type)
      const last = others.at(-1) ?? first
      for (const type of [first, last]) await fetch(path(type), { method: "DELETE" })
      await link.slow(100)
      const registering = register([], linked)
      await until(
        () => isThere(first),
        (begun) => begun
      )
      await link.cut()
      const { code, stderr } = await registering
      expect([code, await isThere(last)]).toEqual([1, false])
      expect(stderr).toMatch(/^The schema registry cannot be asked: [^\n]+$/m)
      await link.mend()

      await link.silence()
      const soon = Policies.layerWith({ "schema.registry": { attemptTimeoutMs: 300, attempts: 2 } })
      const silent = Layer.build(ConfluentSchemaRegistry.layer(linked).pipe(Layer.provide(soon)))
      expect((await Effect.runPromise(Effect.scoped(Effect.flip(silent)))).message).toBe(
        `SCHEMA_REGISTRY_URL cannot be used: ${new URL(linked).origin}: schema.registry did not answer within 300 ms`
      )
      await link.mend()

      await link.slow(20)
      const done = await register([], linked)
      await link.mend()
      expect([done.code, done.stdout.trim()]).toEqual([0, `${allEvents.length} schemas are registered`])
      expect(await Promise.all([first, last].map(isThere))).toEqual([true, true])
    }, 60_000)
  })
}
