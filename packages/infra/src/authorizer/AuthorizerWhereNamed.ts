import { Config, Effect, Layer, Option } from "effect"
import { ServerUnreachable } from "../config/ServerUnreachable.ts"
import type { Policies } from "../policy/Policies.ts"
import { Authorizer } from "./Authorizer.ts"
import * as OpaServer from "./OpaServer.ts"
import * as OpaWasm from "./OpaWasm.ts"

/**
 * Who decides: the OPA that `OPA_URL` names (asked with `OPA_TOKEN`, if there is one); or, in this process, the policy in the
 * file that `OPA_WASM` names (`built-in` is the one of this release); or the rules in TypeScript. Fails with
 * `ServerUnreachable` when what is named cannot decide: a shop without its policies does not open.
 */
export const layer = Layer.unwrap(
  Effect.gen(function* (): Effect.fn.Return<
    Layer.Layer<Authorizer, ServerUnreachable, Policies>,
    ServerUnreachable | Config.ConfigError
  > {
    const url = yield* Config.option(Config.String("OPA_URL"))
    const wasm = yield* Config.option(Config.String("OPA_WASM"))
    if (Option.isSome(url) && Option.isSome(wasm)) {
      return yield* new ServerUnreachable({ variable: "OPA_WASM", address: "", reason: "OPA_URL is named as well" })
    }
    if (Option.isSome(url)) {
      return OpaServer.layer(url.value, Option.getOrUndefined(yield* Config.option(Config.Redacted("OPA_TOKEN"))))
    }
    if (Option.isNone(wasm)) return Authorizer.layerRules
    return OpaWasm.layer(wasm.value === "built-in" ? OpaWasm.builtIn : wasm.value)
  })
)
