import { Config, Effect, Layer, Option, Redacted } from "effect"
import { ServerUnreachable } from "../config/ServerUnreachable.ts"
import { lastCause } from "../runtime/LastCause.ts"
import { Alarms } from "./Alarms.ts"

/** What names a RabbitMQ; the first that is set is used. */
const variables = ["RABBITMQ_URL", "AMQP_URL"]

/** How often everything is looked at although alarms are heard, in milliseconds: some may have been lost, or never set. */
const sweepMs = 60_000

/** The part of `amqp://user:password@host:port/vhost` that may be told. */
const addressOf = (url: string) => {
  const { protocol, host } = URL.canParse(url) ? new URL(url) : { protocol: "", host: "" }
  return /^amqps?:$/.test(protocol) && host !== "" ? host : undefined
}

/**
 * Alarms in the RabbitMQ that `RABBITMQ_URL` or `AMQP_URL` names, in queues that begin with `name`; without one there is no clock. Fails with
 * `ServerUnreachable` when it does not take us at the start; later on a lost connection is made again, and what is due is looked for
 * in between. Its client is loaded here and not before.
 */
export const layer = (name: string) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const urls = yield* Effect.forEach(variables, (variable) =>
        Effect.map(
          Config.option(Config.Redacted(variable)),
          Option.map((url) => ({ variable, url }))
        )
      )
      const named = Option.firstSomeOf(urls)
      if (Option.isNone(named)) return Layer.empty
      const { variable, url } = named.value
      const address = addressOf(Redacted.value(url))
      if (address === undefined) {
        const reason = "expected amqp://user:password@host:port/vhost"
        return yield* new ServerUnreachable({ variable, address: "", reason })
      }
      const [{ connecting }, RabbitAlarms] = yield* Effect.promise(() =>
        Promise.all([import("./RabbitConnection.ts"), import("./RabbitAlarms.ts")])
      )
      return Layer.effect(
        Alarms,
        connecting(Redacted.value(url), name).pipe(
          Effect.mapError(({ cause }) => new ServerUnreachable({ variable, address, reason: lastCause(cause) })),
          Effect.flatMap((connection) => RabbitAlarms.make(connection, name, sweepMs))
        )
      )
    })
  )
