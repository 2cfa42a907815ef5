import { Context, Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { Authorizer, authorize } from "@merkato/infra/authorizer/Authorizer"
import { Policies } from "@merkato/infra/policy/Policies"
import { Api } from "@merkato/rpc/rest/Api"
import type { PoliciesJson } from "@merkato/rpc/rest/OpsJson"
import * as OpsPolicies from "./Policies.ts"
import { answering, json } from "./Rest.ts"

const unstored = { "cache-control": "no-store" }

/** What operators look at, under `/ops`; `contexts` are those of the whole shop. */
export const opsRoutes = (contexts: ReadonlyArray<string>) =>
  HttpApiBuilder.group(
    Api,
    "ops",
    Effect.fn(function* (handlers) {
      const own = Context.pick(Authorizer, Policies)(yield* Effect.context<Authorizer | Policies>())
      const peers = yield* OpsPolicies.PolicyPeers
      const elsewhere = new Set(peers.flatMap((peer) => peer.contexts))
      const local = contexts.filter((name) => !elsewhere.has(name))

      const policies = Effect.gen(function* () {
        const told = yield* Effect.forEach(
          peers,
          ({ contexts, policies }) => Effect.map(policies, (items) => ({ contexts, items })),
          { concurrency: 8 }
        )
        return {
          items: [
            ...(yield* OpsPolicies.here(local)),
            ...told.flatMap(({ items }) => items ?? []),
            ...(yield* OpsPolicies.later)
          ],
          unreachable: told.filter(({ items }) => items === undefined).map(({ contexts }) => ({ contexts }))
        } satisfies typeof PoliciesJson.Encoded
      })

      return handlers.handleAll({
        policies: () =>
          answering(
            Effect.andThen(
              authorize("ops.read"),
              Effect.map(policies, (all) => json(all, 200, unstored))
            )
          ).pipe(Effect.provideContext(own))
      })
    })
  )
