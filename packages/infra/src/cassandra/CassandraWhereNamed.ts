import { Config, Effect, Layer, Option, Redacted } from "effect"
import { ServerUnreachable } from "../config/ServerUnreachable.ts"
import { lastCause } from "../runtime/LastCause.ts"
import { Cassandra } from "./Cassandra.ts"

/** Milliseconds for the first answer of one of them. */
const firstAnswerMs = 15_000

const isAddress = (address: string) => /^[A-Za-z0-9._-]+(:\d{1,5})?$/.test(address)

/** What each node said, if they said different things. */
const reasonOf = (cause: unknown): string => {
  const inner =
    typeof cause === "object" && cause !== null && "innerErrors" in cause ? Object.values(cause.innerErrors ?? {}) : []
  return lastCause(inner[0] ?? cause)
}

/**
 * The Cassandra that `CASSANDRA_CONTACT_POINTS` names (`host:port`, several separated by commas), none without it. Its tables lie
 * in `CASSANDRA_KEYSPACE` (`merkato` unless told); `CASSANDRA_LOCAL_DATACENTER`, `CASSANDRA_USERNAME` and `CASSANDRA_PASSWORD` say
 * the rest. Fails with `ServerUnreachable`. Its client is loaded here and not before.
 */
export const layer = Layer.unwrap(
  Effect.gen(function* (): Effect.fn.Return<
    Layer.Layer<never, ServerUnreachable>,
    ServerUnreachable | Config.ConfigError
  > {
    const given = yield* Config.option(Config.String("CASSANDRA_CONTACT_POINTS"))
    if (Option.isNone(given)) return Layer.empty
    const contactPoints = given.value.split(",").map((address) => address.trim())
    if (!contactPoints.every(isAddress)) {
      const reason = "expected host:port, several separated by commas"
      return yield* new ServerUnreachable({ variable: "CASSANDRA_CONTACT_POINTS", address: "", reason })
    }
    const keyspace = yield* Config.String("CASSANDRA_KEYSPACE").pipe(Config.withDefault("merkato"))
    if (!/^[a-z][a-z0-9_]{0,40}$/.test(keyspace)) {
      const reason = "expected a to z first, then a to z, 0 to 9 and _, at most 41 of them"
      return yield* new ServerUnreachable({ variable: "CASSANDRA_KEYSPACE", address: "", reason })
    }
    const localDataCenter = yield* Config.String("CASSANDRA_LOCAL_DATACENTER").pipe(Config.withDefault("datacenter1"))
    const username = yield* Config.option(Config.String("CASSANDRA_USERNAME"))
    const password = yield* Config.option(Config.Redacted("CASSANDRA_PASSWORD"))
    const credentials =
      Option.isSome(username) && Option.isSome(password)
        ? { username: username.value, password: Redacted.value(password.value) }
        : undefined
    const refuse = (reason: string) =>
      new ServerUnreachable({ variable: "CASSANDRA_CONTACT_POINTS", address: contactPoints.join(", "), reason })
    const CassandraDriver = yield* Effect.promise(() => import("./CassandraDriver.ts"))
    return Layer.effect(
      Cassandra,
      CassandraDriver.make({ contactPoints, localDataCenter, keyspace, credentials }).pipe(
        Effect.timeout(firstAnswerMs),
        Effect.catchTags({
          CassandraUnavailable: ({ cause }) => Effect.fail(refuse(reasonOf(cause))),
          TimeoutError: () => Effect.fail(refuse(`no answer in ${firstAnswerMs / 1_000} s`))
        })
      )
    )
  })
)
