import { Config, Effect, Layer, Option, Redacted } from "effect"
import { ServerUnreachable } from "../config/ServerUnreachable.ts"
import { Devices } from "./Devices.ts"
import type { Broker } from "./MqttConnection.ts"

/** How long the broker keeps messages for a shop that is away, in seconds: 7 days, as the bus keeps events. */
const keptSeconds = 7 * 24 * 60 * 60

/** Most that MQTT lets a client receive before it acknowledges the first. */
const mostUnacknowledged = 65_535

const variable = "MQTT_URL"

/** undefined when the percent signs of a URL make no sense. */
const decoded = (text: string) => Option.getOrUndefined(Option.liftThrowable(decodeURIComponent)(text))

/** The broker of `mqtt://user:password@host:port`, or `mqtts` for TLS; undefined for anything else. */
export const brokerOf = (url: string): Broker | undefined => {
  const parsed = URL.canParse(url) ? new URL(url) : undefined
  if (parsed === undefined || !/^mqtts?:$/.test(parsed.protocol) || parsed.hostname === "") return undefined
  const [username, password] = [decoded(parsed.username), decoded(parsed.password)]
  if (username === undefined || password === undefined) return undefined
  const secure = parsed.protocol === "mqtts:"
  return {
    host: parsed.hostname,
    port: parsed.port === "" ? (secure ? 8883 : 1883) : Number(parsed.port),
    secure,
    username: username === "" ? undefined : username,
    password: password === "" ? undefined : Redacted.make(password)
  }
}

/**
 * The devices behind the broker that `MQTT_URL` names, none without it. Fails with `ServerUnreachable` when it does not take us
 * at the start. Its protocol is loaded here and not before. `MQTT_CLIENT_ID` names the session that it keeps for the shop.
 */
export const layer = Layer.unwrap(
  Effect.gen(function* () {
    const url = yield* Config.option(Config.Redacted(variable))
    if (Option.isNone(url)) return Layer.empty
    const broker = brokerOf(Redacted.value(url.value))
    if (broker === undefined) {
      return yield* new ServerUnreachable({ variable, address: "", reason: "expected mqtt://user:password@host:port" })
    }
    const clientId = yield* Config.String("MQTT_CLIENT_ID").pipe(Config.withDefault("merkato-inventory"))
    const { connect } = yield* Effect.promise(() => import("./MqttConnection.ts"))
    const session = { clientId, keptSeconds }
    yield* connect(broker, { clientId: "", keptSeconds: 0, receiveMaximum: 1 }, []).pipe(
      Effect.scoped,
      Effect.mapError(
        ({ reason }) => new ServerUnreachable({ variable, address: `${broker.host}:${broker.port}`, reason })
      )
    )
    const receive: Devices["Service"]["receive"] = ({ topics, buffer, together, connected, handle }) =>
      Effect.scoped(
        Effect.gen(function* () {
          const receiveMaximum = Math.min(buffer, mostUnacknowledged)
          const connection = yield* connect(broker, { ...session, receiveMaximum }, topics)
          if (!connection.sessionPresent) {
            yield* Effect.logWarning(
              "The MQTT broker does not know the shop: what devices published before now is not told"
            )
          }
          yield* connected
          while (true) {
            const messages = yield* connection.take(together)
            const notices = yield* handle(messages)
            for (const notice of notices) {
              if (yield* connection.publish(notice)) continue
              yield* Effect.logWarning(`The MQTT broker does not let us publish to ${notice.topic}`)
            }
            yield* connection.acknowledge(messages)
          }
        })
      )
    return Layer.succeed(Devices, { receive })
  })
)
