import { Context, Effect } from "effect"
import { SqlClient } from "effect/sql"
import { Authorizer } from "../authorizer/Authorizer.ts"

/**
 * Gives use cases the Authorizer and the database of where they are made. `Effect.provideContext` would copy every service
 * of both sides at each call; this puts two on top, at once.
 */
export const provided = Effect.map(
  Effect.all([Authorizer, SqlClient.SqlClient]),
  ([authorizer, sql]) =>
    <A, E, R>(
      effect: Effect.Effect<A, E, R>
    ): Effect.Effect<A, E, Exclude<Exclude<R, Authorizer>, SqlClient.SqlClient>> =>
      Effect.updateContext(
        effect,
        (outer: Context.Context<Exclude<Exclude<R, Authorizer>, SqlClient.SqlClient>>) =>
          // What was excluded, and both that were, which is more than the compiler follows.
          Context.add(Context.add(outer, Authorizer, authorizer), SqlClient.SqlClient, sql) as Context.Context<R>
      )
)
