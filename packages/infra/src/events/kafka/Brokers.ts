import { Effect } from "effect"
import { Admin, type Broker } from "@platformatic/kafka"
import * as Addresses from "../../config/Addresses.ts"
import { ServerUnreachable } from "../../config/ServerUnreachable.ts"
import { lastCause } from "../../runtime/LastCause.ts"

/** Reads `host:port,host:port`. */
export const parse = Effect.fnUntraced(function* (
  text: string
): Effect.fn.Return<ReadonlyArray<Broker>, ServerUnreachable> {
  const brokers = Addresses.parse(text)
  if (brokers === undefined) {
    // Not repeated: it may hold a secret.
    return yield* new ServerUnreachable({
      variable: "KAFKA_BROKERS",
      address: "",
      reason: "expected host:port, or several separated by commas"
    })
  }
  return brokers
})

/** Fails early, and in a sentence, when none of them answers. */
export const check = (brokers: ReadonlyArray<Broker>): Effect.Effect<void, ServerUnreachable> => {
  const named = brokers.map(({ host, port }) => `${host}:${port}`).join(",")
  return Effect.acquireUseRelease(
    Effect.sync(
      () =>
        new Admin({
          clientId: "merkato-check",
          bootstrapBrokers: [...brokers],
          retries: 0,
          connectTimeout: 5_000,
          requestTimeout: 5_000
        })
    ),
    (admin) =>
      Effect.tryPromise({
        try: () => admin.metadata({ topics: [] }),
        catch: (error) => new ServerUnreachable({ variable: "KAFKA_BROKERS", address: named, reason: lastCause(error) })
      }),
    (admin) => Effect.ignore(Effect.tryPromise(() => admin.close()))
  ).pipe(
    Effect.timeoutOrElse({
      duration: "10 seconds",
      orElse: () =>
        Effect.fail(
          new ServerUnreachable({ variable: "KAFKA_BROKERS", address: named, reason: "no answer within 10 seconds" })
        )
    }),
    Effect.asVoid
  )
}
