import { Config, Effect, Layer, Option, Redacted } from "effect"
import { ServerUnreachable } from "../config/ServerUnreachable.ts"
import { lastCause } from "../runtime/LastCause.ts"
import { ClickHouse } from "./ClickHouse.ts"

/** Milliseconds for the first answer. */
const firstAnswerMs = 5_000

const optionsOf = (given: string) => {
  const url = URL.canParse(given) ? new URL(given) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.search !== "") return undefined
  const database = url.pathname.replace(/^\/|\/$/g, "")
  if (!/^([a-z][a-z0-9_]{0,40})?$/.test(database)) return undefined
  return {
    url: url.origin,
    username: url.username === "" ? "default" : decodeURIComponent(url.username),
    password: decodeURIComponent(url.password),
    database: database === "" ? "merkato" : database
  }
}

/**
 * The ClickHouse that `CLICKHOUSE_URL` names (`http://user:password@host:port/database`; the user `default` and the database
 * `merkato` unless told), none without it. Fails with `ServerUnreachable`. Its client is loaded here and not before.
 */
export const layer = Layer.unwrap(
  Effect.gen(function* (): Effect.fn.Return<
    Layer.Layer<never, ServerUnreachable>,
    ServerUnreachable | Config.ConfigError
  > {
    const given = yield* Config.option(Config.Redacted("CLICKHOUSE_URL"))
    if (Option.isNone(given)) return Layer.empty
    const options = optionsOf(Redacted.value(given.value))
    const refuse = (address: string, reason: string) =>
      new ServerUnreachable({ variable: "CLICKHOUSE_URL", address, reason })
    if (options === undefined) return yield* refuse("", "expected http://user:password@host:port/database")
    const { host } = new URL(options.url)
    const ClickHouseClient = yield* Effect.promise(() => import("./ClickHouseClient.ts"))
    return Layer.effect(
      ClickHouse,
      ClickHouseClient.make(options).pipe(
        Effect.timeout(firstAnswerMs),
        Effect.catchTags({
          ClickHouseUnavailable: ({ cause }) => Effect.fail(refuse(host, lastCause(cause))),
          NoSuchTable: ({ cause }) => Effect.fail(refuse(host, lastCause(cause))),
          TimeoutError: () => Effect.fail(refuse(host, `no answer in ${firstAnswerMs / 1_000} s`))
        })
      )
    )
  })
)
