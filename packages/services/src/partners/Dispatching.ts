import { Deferred, Effect, Queue } from "effect"
import { Alarms, lookEveryMs, type Rung } from "@merkato/infra/delay/Alarms"
import { mostOfOne, WebhookDispatch } from "./WebhookDispatch.ts"

/** Requests under way at once. */
const mostAtOnce = 64

/** Milliseconds: requests that end together are followed up together. */
const gatherMs = 10

/** Sends what is due, as it becomes due; each request by itself, so that a slow one holds up nothing else. */
export const dispatching = Effect.gen(function* () {
  const dispatch = yield* WebhookDispatch
  const alarms = yield* Alarms
  const underWay = new Map<string, number>()
  let count = 0
  /** Where something may be due. */
  let unseen: Set<string> | "all" = new Set()
  /** Who waits for their alarm to be looked at. */
  const waiting: Array<Deferred.Deferred<void>> = []
  const called = yield* Queue.dropping<void>(1)

  const see = (rung: Rung) => {
    unseen = rung === "all" || unseen === "all" ? "all" : new Set([...unseen, ...rung])
    Queue.offerUnsafe(called, undefined)
  }
  const change = (group: string, by: number) => {
    count += by
    const left = (underWay.get(group) ?? 0) + by
    if (left === 0) underWay.delete(group)
    else underWay.set(group, left)
  }

  const listening = alarms.rung((rung) =>
    Effect.suspend(() => {
      const seen = Deferred.makeUnsafe<void>()
      waiting.push(seen)
      see(rung)
      return Deferred.await(seen)
    })
  )

  const turn = Effect.gen(function* () {
    yield* Queue.take(called)
    if (count >= mostAtOnce) return
    const answered = waiting.splice(0)
    const looked = unseen
    unseen = new Set()
    const saturated = [...underWay].filter(([, requests]) => requests >= mostOfOne).map(([group]) => group)
    const of = looked === "all" ? looked : [...looked]
    const taken = yield* Effect.onError(dispatch.take(mostAtOnce - count, of, saturated), () =>
      Effect.sync(() => {
        waiting.unshift(...answered)
        see(of)
      })
    )
    for (const each of taken) {
      change(each.group, 1)
      const sent = dispatch.send(each).pipe(
        Effect.catchCause((cause) => Effect.logWarning("A webhook is sent again later", cause)),
        // What was done may have made the next of its aggregate due, and there is room.
        Effect.ensuring(
          Effect.sync(() => {
            change(each.group, -1)
            see([each.group])
          })
        )
      )
      yield* Effect.forkScoped(sent)
    }
    // There may be more.
    if (taken.length > 0) see(of)
    for (const seen of answered) Deferred.doneUnsafe(seen, Effect.void)
    yield* Effect.sleep(gatherMs)
  })
  const pause = (error: unknown) =>
    Effect.andThen(Effect.logWarning("Webhooks pause", error), Effect.sleep(lookEveryMs))
  yield* Effect.forkScoped(Effect.forever(listening))
  return yield* Effect.forever(Effect.catch(turn, pause))
}).pipe(Effect.scoped)
