import { Deferred, Effect, Queue, Random, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import { ServerStatus } from "@merkato/infra/http/BunHttpServer"
import { limits, notices } from "@merkato/rpc/live/FlashSalesLive"
import * as LiveMetrics from "./LiveMetrics.ts"
import { message, type SaleEvents } from "./SaleEvents.ts"

const encoder = new TextEncoder()

/** What an event id may be; anything else cannot be one of ours. */
const idPattern = /^[A-Za-z0-9_-]{1,64}$/

/** How long the client waits before it comes back, in milliseconds; its next event may be long after. */
const retry = (ms: number) => encoder.encode(`retry: ${ms}\n\n`)

const headers = {
  "cache-control": "no-cache",
  // A proxy that gathers the answer before it passes it on would hold everything back.
  "x-accel-buffering": "no"
}

/** The events of flash sales, from after the one that the client has seen last, or from now on. */
export const response = Effect.fnUntraced(function* (sales: SaleEvents, lastEventId: string | undefined) {
  const status = yield* ServerStatus
  const services = yield* Effect.context<never>()
  const { least, most } = limits.retryMs
  const retryMs = yield* Random.nextIntBetween(least, most)

  const stream = Stream.unwrap(
    Effect.gen(function* () {
      yield* LiveMetrics.connected("sse_flash_sales")
      const waiting = yield* Queue.dropping<Uint8Array>(limits.waitingEvents)
      const tooSlow = yield* Deferred.make<void>()
      yield* sales.join((bytes) => {
        if (Queue.offerUnsafe(waiting, bytes)) return true
        Deferred.doneUnsafe(tooSlow, Effect.void)
        return false
      })
      // Asked for once it has joined: what comes in between may come twice, and is never missing.
      const missed = lastEventId === undefined || lastEventId === "" ? [] : missedSince(sales, lastEventId)
      const end = Effect.raceFirst(
        Effect.as(status.awaitDraining, retry(retryMs)),
        Effect.andThen(
          Deferred.await(tooSlow),
          Effect.as(
            LiveMetrics.dropped("sse_flash_sales", notices.slowReader.data.code),
            message(notices.slowReader.event, notices.slowReader.data)
          )
        )
      )
      const farewell = yield* Deferred.make<Uint8Array>()
      return Stream.make(retry(retryMs), ...missed).pipe(
        Stream.concat(Stream.fromQueue(waiting)),
        Stream.tap(() => Effect.sync(() => LiveMetrics.sent("sse_flash_sales", 1, services))),
        Stream.interruptWhen(Effect.flatMap(end, (bytes) => Deferred.succeed(farewell, bytes))),
        Stream.concat(Stream.fromEffect(Deferred.await(farewell)))
      )
    })
  )
  return HttpServerResponse.stream(stream, { contentType: "text/event-stream", headers })
})

const missedSince = (sales: SaleEvents, lastEventId: string): ReadonlyArray<Uint8Array> => {
  const missed = idPattern.test(lastEventId) ? sales.since(lastEventId) : undefined
  return missed === undefined
    ? [message(notices.resumeNotPossible.event, notices.resumeNotPossible.data)]
    : missed.map(({ bytes }) => bytes)
}
