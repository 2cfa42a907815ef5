/** The database of a context: its own (MERKATO_<CONTEXT>_DATABASE_URL), else that of the whole shop. */
import { Config, Effect, Layer, Option } from "effect"
import type { SqlError } from "effect/sql"
import * as Database from "@merkato/infra/postgres/Database"
import { check, DatabaseUrl } from "@merkato/infra/postgres/DatabaseUrl"
import { CommandFailed, reasonsOf } from "./Failure.ts"

/** A command's own statements may read much. */
const statementTimeoutMs = 60_000

const urlOf = Effect.fnUntraced(function* (context: string, dataDir: string) {
  const variable = `MERKATO_${context.toUpperCase()}_DATABASE_URL`
  const given = yield* Config.option(Config.Redacted(variable))
  if (Option.isSome(given)) {
    yield* check(given.value, variable)
    return given.value
  }
  return yield* DatabaseUrl.use(({ url }) => Effect.succeed(url)).pipe(
    Effect.provide(DatabaseUrl.layerRunning(dataDir))
  )
})

/** Connections to it, for what a command does there. */
export const layer = (context: string, dataDir: string) =>
  Layer.unwrap(
    Effect.map(urlOf(context, dataDir), (url) =>
      Database.layer({ url, maxConnections: 4, applicationName: "merkato-command", statementTimeoutMs })
    )
  )

/** What the database refuses, as a sentence. */
export const explained = (context: string) => (error: SqlError.SqlError) => {
  const said = reasonsOf(error).join(": ")
  return new CommandFailed({
    reason: said.includes("does not exist")
      ? `The database of ${context} does not have what this command works on: start a shop of this version on it first.`
      : `The database of ${context} cannot be used: ${said}.`
  })
}
