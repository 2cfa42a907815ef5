import { Clock, Context, DateTime, Effect, Layer, Metric, Result } from "effect"
import { SubscriptionId } from "@merkato/domain/kernel/Ids"
import type { ServiceUnavailable } from "@merkato/domain/kernel/Problem"
import { WebhookDeliveryFailed } from "@merkato/domain/partners/PartnerEvents"
import { Encryption } from "@merkato/infra/auth/Encryption"
import * as Provided from "@merkato/infra/context/Provided"
import { Alarms, type Rung } from "@merkato/infra/delay/Alarms"
import { DelayQueue, type Taken } from "@merkato/infra/delay/DelayQueue"
import { EventStore } from "@merkato/infra/events/EventStore"
import { NotReached, PublicHttp } from "@merkato/infra/http/PublicHttp"
import * as RetryAfter from "@merkato/infra/http/RetryAfter"
import * as Backoff from "@merkato/infra/policy/Backoff"
import type * as Limits from "@merkato/infra/policy/Limits"
import { Policies } from "@merkato/infra/policy/Policies"
import { orUnavailable, transaction } from "@merkato/infra/postgres/Database"
import * as PartnersStore from "./PartnersStore.ts"
import { headersOf, type Message, signatures } from "@merkato/infra/auth/WebhookSignature"

/** Requests under way at once to one subscription: a receiver that hangs does not hold up the others. */
export const mostOfOne = 8

/** Beside the time that a try may take: for the database. Who is silent for longer is taken for dead. */
const leaseMarginMs = 20_000

/** Deliveries given up in a row, each after all its retries, that disable a subscription. */
const longRun = 10

const retries = Metric.counter("webhook_retry_attempts_total", {
  description: "Tries to tell a partner of an event, after the first",
  incremental: true
})
const settled = Metric.counter("webhook_deliveries_total", {
  description: "Events owed to partners that were told or given up",
  incremental: true
})

/** Who answers so may say when to come again (RFC 9110, section 10.2.3; RFC 6585, section 4). */
const mayTellWhen = [429, 503]

/** What a receiver that answers so wants: to hear nothing more (410, RFC 9110, section 15.5.11). */
const gone = 410

const isTold = (status: number) => status >= 200 && status < 300

/** The delay before the nth retry, in milliseconds: that of the schedule, or as long as they ask for, up to the longest one. */
const delayMs = (backoff: Limits.Backoff, nth: number, at: number, retryAfter: string | undefined) => {
  const asked = retryAfter === undefined ? undefined : RetryAfter.timeOf(retryAfter, at)
  const scheduled = Backoff.delayMs(backoff, nth)
  return asked === undefined ? scheduled : Math.max(scheduled, Math.min(asked - at, Backoff.longestMs(backoff)))
}

/** Sends what is owed to partners: one event of an aggregate after the other, and each until it is told or given up. */
export class WebhookDispatch extends Context.Service<
  WebhookDispatch,
  {
    /** Takes what is due of these subscriptions, or of all, for `send`; nothing of those in `except`. */
    readonly take: (
      limit: number,
      of: Rung,
      except: ReadonlyArray<string>
    ) => Effect.Effect<ReadonlyArray<Taken>, ServiceUnavailable>
    /** Tries to tell the oldest event that is owed there. */
    readonly send: (taken: Taken) => Effect.Effect<void, ServiceUnavailable>
  }
>()("merkato/partners/WebhookDispatch") {
  static readonly layer = Layer.effect(
    WebhookDispatch,
    Effect.gen(function* () {
      const store = yield* PartnersStore.make
      const queue = yield* DelayQueue
      const alarms = yield* Alarms
      const events = yield* EventStore
      const encryption = yield* Encryption
      const http = yield* PublicHttp
      const policies = yield* Policies
      const provided = yield* Provided.provided
      const orAway = orUnavailable("partners")
      const limits = Effect.map(policies.limits("webhook.dispatch"), (limits) => ({
        ...limits,
        timeoutMs: limits.attemptTimeoutMs ?? 10_000
      }))

      const take = (limit: number, of: Rung, except: ReadonlyArray<string>) =>
        Effect.gen(function* () {
          const { timeoutMs } = yield* limits
          const now = yield* DateTime.nowAsDate
          return yield* queue.take({ now, leaseMs: timeoutMs + leaseMarginMs, limit, perGroup: mostOfOne, of, except })
        }).pipe(orAway, Effect.withTracerEnabled(false))

      /** Everything that was owed there is not sent; what came meanwhile is looked at in its turn. */
      const rest = Effect.fnUntraced(function* (taken: Taken, at: Date) {
        if (yield* store.owes(taken)) yield* queue.again(taken, at)
        else yield* queue.done(taken, at)
      })

      const post = Effect.fnUntraced(function* (owed: PartnersStore.Owed, subscriptionId: string, message: Message) {
        const about = PartnersStore.secretAbout(subscriptionId)
        const unreadable = () => new NotReached({ reason: "the secret of the subscription cannot be read: rotate it" })
        const read = (cipher: string) => Effect.mapError(encryption.decrypt(cipher, about), unreadable)
        if (owed.url === null || owed.secret === null) return yield* new NotReached({ reason: "no subscription" })
        const secret = yield* read(owed.secret)
        const overlaps = owed.previousUntil !== null && owed.previousUntil.getTime() > message.at
        const previous = overlaps && owed.previousSecret !== null ? yield* read(owed.previousSecret) : undefined
        const headers = { ...headersOf(message), ...signatures(message, secret, previous) }
        const { timeoutMs } = yield* limits
        return yield* http.post({ url: owed.url, headers, body: message.body, timeoutMs })
      })

      /** Tells of it and, after a long run of them, ends the subscription. */
      const giveUp = Effect.fnUntraced(function* (
        owed: PartnersStore.Owed,
        group: string,
        reason: string,
        isGone: boolean,
        at: Date
      ) {
        const subscriptionId = SubscriptionId.make(group)
        const counted = yield* store.givesUp(subscriptionId)
        if (counted === undefined || owed.ownerId === null) return
        const failed = WebhookDeliveryFailed.of(subscriptionId, counted.version, {
          subscriptionId,
          ownerId: owed.ownerId,
          deliveryId: owed.deliveryId,
          eventId: owed.eventId,
          eventType: owed.eventType,
          attempts: owed.attempts + 1,
          reason,
          failedAt: DateTime.makeUnsafe(at)
        })
        yield* events.append([failed], at)
        if (!isGone && counted.givenUp < longRun) return
        yield* Effect.logWarning(`Webhook subscription ${subscriptionId} is ${isGone ? "gone" : "disabled"}`, reason)
        yield* store.setStatus(subscriptionId, isGone ? "GONE" : "DISABLED")
        yield* store.skipOwed(subscriptionId)
      })

      /**
       * What a try has shown is written down, unless somebody else has taken over meanwhile. The delivery comes last: with
       * its subscription goes the delivery of everybody else who wants to write that.
       */
      const settle = (
        taken: Taken,
        owed: PartnersStore.Owed,
        tried: PartnersStore.Tried,
        retryAfter: string | undefined
      ) =>
        Effect.gen(function* () {
          const { attempts, backoff } = yield* limits
          const nth = owed.attempts + 1
          const told = tried.responseStatus !== null && isTold(tried.responseStatus)
          const isGone = tried.responseStatus === gone
          const last = isGone || backoff === null || (attempts !== null && nth >= attempts)
          const at = new Date(tried.at + tried.durationMs)
          const outcome = yield* transaction(
            Effect.gen(function* () {
              if (!(yield* queue.holds(taken))) return undefined
              if (told) {
                yield* store.arrives(taken.group)
                yield* store.tried(owed.deliveryId, "DELIVERED", tried)
              } else if (last) {
                const reason = tried.error ?? `answered ${tried.responseStatus}`
                yield* giveUp(owed, taken.group, reason, isGone, at)
                yield* store.tried(owed.deliveryId, "FAILED", tried)
              } else {
                const next = new Date(at.getTime() + delayMs(backoff, nth, at.getTime(), retryAfter))
                yield* store.tried(owed.deliveryId, "PENDING", tried)
                yield* queue.again(taken, next)
                return next
              }
              yield* rest(taken, at)
              return told ? ("told" as const) : ("given_up" as const)
            })
          )
          if (outcome instanceof Date) yield* alarms.set([taken.group], outcome)
          else if (outcome !== undefined) yield* Metric.update(Metric.withAttributes(settled, { outcome }), 1)
        })

      const attempt = Effect.fnUntraced(function* (taken: Taken, owed: PartnersStore.Owed) {
        const at = yield* Clock.currentTimeMillis
        const message = { id: owed.eventId, body: owed.body, at }
        if (owed.attempts > 0) yield* Metric.update(retries, 1)
        const answer = yield* Effect.result(post(owed, taken.group, message))
        const tried = {
          at,
          durationMs: Math.round((yield* Clock.currentTimeMillis) - at),
          requestHeaders: headersOf(message),
          responseStatus: Result.isSuccess(answer) ? answer.success.status : null,
          responseBody: Result.isSuccess(answer) ? answer.success.body : null,
          error: Result.isFailure(answer) ? answer.failure.reason : null
        }
        const tells = Result.isSuccess(answer) && mayTellWhen.includes(answer.success.status)
        yield* settle(taken, owed, tried, tells ? answer.success.retryAfter : undefined)
      })

      const send = (taken: Taken) =>
        Effect.gen(function* () {
          const owed = yield* store.next(taken)
          if (owed?.status === "ACTIVE") return yield* attempt(taken, owed)
          const at = yield* DateTime.nowAsDate
          yield* transaction(
            Effect.gen(function* () {
              if (!(yield* queue.holds(taken))) return
              if (owed !== undefined) yield* store.skipOwed(taken.group)
              yield* rest(taken, at)
            })
          )
        }).pipe(orAway, provided, Effect.withTracerEnabled(false))

      return WebhookDispatch.of({ take, send })
    })
  )
}
