import { Effect, Schema } from "effect"
import { Connection } from "rabbitmq-client"

/** RabbitMQ does not answer, or refuses. */
export class RabbitUnavailable extends Schema.TaggedError<RabbitUnavailable>()("RabbitUnavailable", {
  cause: Schema.Defect()
}) {}

/** Milliseconds for a connection, and for each answer to what sets it up. */
const answerWithinMs = 5_000

/** Seconds between signs of life; who gives none for two of them is gone. */
const heartbeat = 10

/** Milliseconds that saying goodbye may take. */
const goodbyeMs = 2_000

/** Says goodbye, unless that takes too long: whoever is on the other side finds out by itself then. */
export const goodbye = (...all: ReadonlyArray<Promise<unknown> | undefined>): Effect.Effect<unknown> =>
  Effect.promise(() => Promise.race([Promise.allSettled(all), Bun.sleep(goodbyeMs)]))

/** A connection to `amqp://user:password@host:port/vhost`, made again whenever it is lost. Fails when the first one does not come about. */
export const connecting = (url: string, connectionName: string) =>
  Effect.acquireRelease(
    Effect.callback<Connection, RabbitUnavailable>((resume) => {
      const connection = new Connection({
        url,
        connectionName,
        heartbeat,
        connectionTimeout: answerWithinMs,
        acquireTimeout: answerWithinMs,
        retryLow: 200,
        retryHigh: 2_000,
        noDelay: true
      })
      connection.once("connection", () => resume(Effect.succeed(connection)))
      // Told once for each loss, to whoever listens; unheard it would end the process.
      connection.on("error", (cause) =>
        resume(
          Effect.suspend(() => {
            connection.unsafeDestroy()
            return Effect.fail(new RabbitUnavailable({ cause }))
          })
        )
      )
      return Effect.sync(() => connection.unsafeDestroy())
    }),
    (connection) =>
      Effect.suspend(() => goodbye(connection.close())).pipe(
        Effect.andThen(Effect.sync(() => connection.unsafeDestroy()))
      )
  )
