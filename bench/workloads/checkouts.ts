import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect } from "effect"
import type { Stage } from "../Stage.ts"
import { pgbench } from "../Twin.ts"
import { load, type Workload } from "../Workload.ts"

/** No limits for what a checkout calls, as a limits file says it. */
const withoutLimits = Object.fromEntries(
  ["payment.soap", "payment.rest", "stock.reserve", "risk.assess"].map((operation) => [
    operation,
    { deadlineMs: null, attemptTimeoutMs: null, breaker: null, bulkhead: null, retryBudget: null }
  ])
)

/** The limits file is read every three seconds. */
const limits = (stage: Stage, on: boolean) =>
  Effect.andThen(
    Effect.sync(() => writeFileSync(join(stage.dataDir, "policies.json"), JSON.stringify(on ? {} : withoutLimits))),
    Effect.sleep("4 seconds")
  )

const bench = crypto.randomUUID().slice(0, 8)
let runs = 0

/** Whole checkouts: cart, two items, checkout with payment by the built-in gateway; each by another shopper. */
const whole = (stage: Stage, clients: number) => (seconds: number, perSecond?: number) =>
  Effect.suspend(() => {
    runs += 1
    const tag = runs
    const { shoppers, productIds } = stage
    const half = productIds.length / 2
    const carts: Array<string> = []
    const item = (client: number, from: number) => ({
      method: "PUT" as const,
      path: `/api/v1/carts/${carts[client]}/items/${productIds[from + Math.floor(Math.random() * half)]}`,
      body: '{"qty":1}'
    })
    return load(stage, {
      clients,
      seconds,
      ...(perSecond === undefined ? {} : { perSecond }),
      steps: 4,
      next: (client, nth, step, before) => {
        if (step === 1) carts[client] = /"cartId":"([^"]+)"/.exec(before)?.[1] ?? ""
        const authorization = `authorization: Bearer ${shoppers[(nth * clients + client) % shoppers.length]}\r\n`
        switch (step) {
          case 0:
            return { method: "POST", path: "/api/v1/carts", headers: authorization, body: "{}" }
          case 1:
            return { ...item(client, 0), headers: authorization }
          case 2:
            return { ...item(client, half), headers: authorization }
          default:
            return {
              method: "POST",
              path: "/api/v1/checkout",
              headers: `${authorization}idempotency-key: ${bench}-${tag}-${client}-${nth}\r\n`,
              body: `{"cartId":"${carts[client]}","paymentToken":"tok_ok"}`
            }
        }
      }
    })
  })

const script = join(import.meta.dir, "../sql/place-order.sql")

/** Whole checkouts, beside the bare order of pgbench. */
export const checkouts = (stage: Stage, binary: string, clients: number): Workload => ({
  name: "checkouts",
  title: `whole checkouts (cart, 2 items, checkout with payment), ${clients} clients`,
  twin: `pgbench -M prepared, place-order.sql, ${clients} clients`,
  ours: whole(stage, clients),
  paced: whole(stage, clients),
  theirs: (seconds) =>
    Effect.promise(() => pgbench({ binary, database: stage.database("twin"), script, clients }, seconds))
})

/** The same without the policies that guard it, beside the same with them: what they cost. */
export const unguarded = (stage: Stage, clients: number): Workload => ({
  name: "unguarded",
  title: `whole checkouts without policies, ${clients} clients`,
  twin: "the same with them",
  ours: (seconds) =>
    Effect.acquireUseRelease(
      limits(stage, false),
      () => whole(stage, clients)(seconds),
      () => limits(stage, true)
    ),
  theirs: (seconds) => Effect.map(whole(stage, clients)(seconds), (turn) => turn.perSecond)
})
