import { Config, Context, Effect, Layer, Option, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import { ServerUnreachable } from "../config/ServerUnreachable.ts"
import * as Database from "./Database.ts"
import { EmbeddedPostgres } from "./EmbeddedPostgres.ts"
import * as RunningPostgres from "./RunningPostgres.ts"
import { lastCause } from "../runtime/LastCause.ts"

/** Where the data is: the server of `DATABASE_URL`, or the embedded one. */
export class DatabaseUrl extends Context.Service<DatabaseUrl, { readonly url: Redacted.Redacted }>()(
  "merkato/infra/DatabaseUrl"
) {
  /** The embedded Postgres runs only when `DATABASE_URL` is not set. */
  static readonly layer = Layer.unwrap(
    Effect.gen(function* () {
      const given = yield* Config.option(Config.Redacted("DATABASE_URL"))
      if (Option.isNone(given)) {
        return Layer.effect(
          DatabaseUrl,
          Effect.map(EmbeddedPostgres, ({ url }) => ({ url }))
        ).pipe(Layer.provide(EmbeddedPostgres.layerIn()))
      }
      yield* check(given.value)
      return Layer.succeed(DatabaseUrl, { url: given.value })
    })
  )

  /** For who works on the data of a shop that runs: `DATABASE_URL`, or the embedded server as it is; nothing is started. */
  static readonly layerRunning = (dataDir: string) =>
    Layer.effect(
      DatabaseUrl,
      Effect.gen(function* () {
        const given = yield* Config.option(Config.Redacted("DATABASE_URL"))
        if (Option.isNone(given)) return { url: yield* RunningPostgres.url(dataDir) }
        yield* check(given.value)
        return { url: given.value }
      })
    )
}

/** Fails early, and in a sentence, when nobody answers at the address. */
export const check = Effect.fnUntraced(function* (url: Redacted.Redacted, variable = "DATABASE_URL") {
  const text = Redacted.value(url)
  const host = URL.canParse(text) ? new URL(text).host : ""
  const unreachable = (reason: string) => new ServerUnreachable({ variable, address: host, reason })
  if (!/^postgres(ql)?:\/\//.test(text) || host === "") {
    return yield* unreachable("expected postgres://user:password@host:port/database")
  }
  yield* Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* sql`select 1`
  }).pipe(
    Effect.provide(Database.layer({ url, maxConnections: 1, applicationName: "merkato-check" })),
    Effect.timeout("10 seconds"),
    Effect.mapError((error) =>
      unreachable(error._tag === "SqlError" ? lastCause(error) : "no answer within 10 seconds")
    )
  )
})
