// How long a decision takes: by the rules in TypeScript, by the policy as wasm, and by an OPA where OPA_URL names one.
import { ConfigProvider, Effect, Layer } from "effect"
import { Authorizer } from "@merkato/infra/authorizer/Authorizer"
import * as AuthorizerWhereNamed from "@merkato/infra/authorizer/AuthorizerWhereNamed"
import { Policies } from "@merkato/infra/policy/Policies"
import { cases } from "../packages/infra/test/Authorizer.cases.ts"
import { median } from "./Report.ts"

const rounds = 9

const measure = (name: string, environment: Readonly<Record<string, string>>, questions: typeof cases) =>
  Effect.gen(function* () {
    const { decide } = yield* Authorizer
    const took: Array<number> = []
    const used: Array<number> = []
    // The first round is for the compiler.
    for (let round = 0; round <= rounds; round++) {
      const [began, before] = [performance.now(), process.cpuUsage()]
      for (const question of questions) yield* decide(question)
      const { user, system } = process.cpuUsage(before)
      if (round === 0) continue
      took.push((1_000 * (performance.now() - began)) / questions.length)
      used.push((user + system) / questions.length)
    }
    const [all, least, cpu] = [median(took), Math.min(...took), median(used)].map((us) => us.toFixed(1))
    console.log(`${name}: ${all} µs a decision (the fastest round ${least}), of the processor ${cpu}`)
  }).pipe(
    Effect.provide(
      AuthorizerWhereNamed.layer.pipe(
        Layer.provide(Policies.layerWith()),
        Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(environment)))
      )
    ),
    Effect.runPromise
  )

const url = process.env["OPA_URL"]
await measure("rules", {}, cases)
await measure("wasm", { OPA_WASM: "built-in" }, cases)
if (url !== undefined) await measure("server", { OPA_URL: url }, cases.slice(0, 200))
