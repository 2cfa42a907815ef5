import { readFileSync } from "node:fs"
import { Effect, Layer } from "effect"
import { ServerUnreachable } from "../config/ServerUnreachable.ts"
import { Authorizer, type Question } from "./Authorizer.ts"
import { actionsPath, inputOf, isVerdict, undecided, unfit, verdictPath } from "./OpaPolicy.ts"

/** The policy of this release, as `bun scripts/build-policy.ts` made it of the Rego beside it. */
export const builtIn = new URL("./policy/authz.wasm", import.meta.url).pathname

/** What the policy says at an entrypoint; undefined where it says nothing. */
type Evaluate = (entrypoint: string, input?: object) => unknown

const reasonOf = (cause: unknown) => (cause instanceof Error ? cause.message : String(cause))

/** Its runtime is loaded here and not before: a shop that does not use it does without it. */
const load = Effect.fnUntraced(function* (path: string) {
  const bytes = yield* Effect.try({ try: () => readFileSync(path), catch: () => "it cannot be read" })
  const { loadPolicy } = yield* Effect.promise(() => import("@open-policy-agent/opa-wasm"))
  const policy = yield* Effect.tryPromise({ try: () => loadPolicy(bytes), catch: reasonOf })
  const evaluate: Evaluate = (entrypoint, input) => policy.evaluate(input, entrypoint)?.[0]?.result
  const actions = yield* Effect.try({ try: () => evaluate(actionsPath), catch: reasonOf })
  const reason = unfit(actions)
  return reason === undefined ? evaluate : yield* Effect.fail(reason)
})

/** What goes wrong in a policy denies. */
const decide = (evaluate: Evaluate) => (question: Question) =>
  Effect.try({ try: () => evaluate(verdictPath, inputOf(question)), catch: reasonOf }).pipe(
    Effect.filterOrFail(isVerdict, (answer) => `it answers ${JSON.stringify(answer)}`),
    Effect.tapError((reason) => Effect.logError(`The policy did not decide: ${reason}`)),
    Effect.mapError(() => undecided(1))
  )

/** The policy in a file that `opa build -t wasm` made, evaluated in this process. Fails when it is not for this shop. */
export const layer = (path: string) =>
  Layer.effect(
    Authorizer,
    load(path).pipe(
      Effect.mapError((reason) => new ServerUnreachable({ variable: "OPA_WASM", address: path, reason })),
      Effect.map((evaluate) => Authorizer.of({ decide: decide(evaluate) }))
    )
  )
