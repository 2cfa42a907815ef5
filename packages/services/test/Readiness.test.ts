import { expect, test } from "bun:test"
import { Context, Duration, Effect, Layer, Logger } from "effect"
import { HttpServer } from "effect/http"
import { Switchboard } from "@merkato/rpc/contract/Contract"
import { contextNames, contexts } from "../src/contexts.ts"
import * as Deployment from "../src/deployment.ts"
import { Health } from "../src/gateway/Health.ts"

const run = <A, E>(effect: Effect.Effect<A, E, never>): Promise<A> =>
  effect.pipe(Effect.provide(Logger.layer([])), Effect.withTracerEnabled(false), Effect.runPromise)

/** A process with these needs, and nobody who answers them yet. */
const waiting = (needs: ReadonlyArray<string>) =>
  Deployment.http(Health.pipe(Layer.provide(Deployment.readiness(needs))), {
    port: 0,
    drainTimeout: Duration.millis(50)
  }).pipe(Layer.provideMerge(Switchboard.layer))

test("a process is not ready while nobody serves a contract that it needs, and says which", () =>
  run(
    Effect.gen(function* () {
      const needs = Deployment.needsOf(["orders"], false)
      expect(needs).toEqual(["cart", "pricing", "risk", "inventory", "payments"])
      const context = yield* Layer.build(waiting(needs))
      const { address } = Context.get(context, HttpServer.HttpServer)
      const url = `http://127.0.0.1:${"port" in address ? address.port : 0}`
      const ask = (path: string) =>
        Effect.promise(async () => {
          const response = await fetch(`${url}${path}`)
          return { status: response.status, body: await response.json() }
        })
      const missing: Array<string> = [...needs]
      for (const contract of needs) {
        expect(yield* ask("/readyz")).toMatchObject({ status: 503, body: { waitingFor: [...missing] } })
        yield* Context.get(context, Switchboard).connect(contract, new Map())
        missing.shift()
      }
      expect((yield* ask("/readyz")).status).toBe(200)
      expect((yield* ask("/healthz")).status).toBe(200)
    }).pipe(Effect.scoped)
  ))

test("a shop of all contexts needs nobody from outside", () => {
  const offered: ReadonlyArray<string> = contextNames
  expect(Deployment.needsOf(contextNames, true).filter((need) => !offered.includes(need))).toEqual([])
})

test("a contract is known under its context's name", () => {
  for (const name of contextNames) {
    expect<string>(Deployment.contracts[name].contract).toBe(name)
    expect<string>(contexts[name].name).toBe(name)
  }
})
