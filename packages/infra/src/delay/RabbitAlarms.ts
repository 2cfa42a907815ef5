import { Clock, Effect, Option, Queue, Schema } from "effect"
import { type AsyncMessage, type Connection, ConsumerStatus, type Publisher } from "rabbitmq-client"
import { Policies } from "../policy/Policies.ts"
import { lastCause } from "../runtime/LastCause.ts"
import { type AlarmClock, lookEveryMs } from "./Alarms.ts"
import { goodbye, RabbitUnavailable } from "./RabbitConnection.ts"

const seconds = 1_000
const minutes = 60 * seconds

/**
 * There is a queue for each of these times to wait: RabbitMQ looks only at the first message of a queue, so in one queue for all a
 * long wait would hold up the short ones behind it. They do not follow a policy, which may change while messages wait.
 */
export const waitsMs = [
  100,
  seconds,
  5 * seconds,
  30 * seconds,
  2 * minutes,
  5 * minutes,
  15 * minutes,
  30 * minutes
] as const

/** A wait that is too long by so much, in milliseconds, is long enough. */
const tooLongBy = 100

/**
 * Where to wait for so many milliseconds; undefined when there is nothing to wait for. What fits none of the waits takes the
 * longest that is not too long, and rings too early: then it waits again.
 */
export const waitFor = (delayMs: number): number | undefined => {
  if (delayMs <= 0) return undefined
  return (
    waitsMs.find((wait) => wait >= delayMs && wait - delayMs <= tooLongBy) ??
    waitsMs.findLast((wait) => wait <= delayMs) ??
    waitsMs[0]
  )
}

/** Messages that RabbitMQ hands out before the first of them is acknowledged. */
const prefetchCount = 256

/** Messages that lie in a queue at most. Where it is full of what waits, no more is taken, which who sets it is told. */
const mostWaiting = 1_000_000
/** Of what rings while nobody listens, the oldest go: who begins to listen looks at everything anyway. */
const mostRinging = 100_000

const Body = Schema.Struct({ group: Schema.String, at: Schema.Number })
type Body = typeof Body.Type
const decodeBody = Schema.decodeUnknownOption(Body)

interface Heard extends Body {
  readonly answer: (status: ConsumerStatus) => void
}

/**
 * Alarms in RabbitMQ: a message waits in a queue whose messages die after a time, and goes from there (dead letters) to the queue of
 * those that ring. `sweepMs`: how often everything is looked at nevertheless, in milliseconds; as long as there is no knowing whether
 * alarms are heard, as often as without RabbitMQ.
 */
export const make = Effect.fnUntraced(function* (connection: Connection, name: string, sweepMs: number) {
  const policies = yield* Policies
  const ringing = `${name}.due`
  const waiting = (waitMs: number) => `${name}.wait-${waitMs}ms`
  const ringingQueue = { queue: ringing, durable: true, arguments: { "x-max-length": mostRinging } }
  const queues = [
    ringingQueue,
    ...waitsMs.map((waitMs) => ({
      queue: waiting(waitMs),
      durable: true,
      arguments: {
        "x-message-ttl": waitMs,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": ringing,
        "x-max-length": mostWaiting,
        "x-overflow": "reject-publish"
      }
    }))
  ]

  /** Messages for which there was no queue. */
  const returned = new Set<string>()
  /** Declares the queues with its first message, and again on each new connection. */
  const newPublisher = () =>
    connection
      .createPublisher({ confirm: true, queues })
      .on("basic.return", ({ messageId }) => void returned.add(messageId ?? ""))
  let publisher: Publisher | undefined

  const publish = (body: Body, waitMs: number | undefined) =>
    Effect.tryPromise({
      try: async () => {
        publisher ??= newPublisher()
        const messageId = crypto.randomUUID()
        const routingKey = waitMs === undefined ? ringing : waiting(waitMs)
        await publisher.send({ routingKey, durable: true, mandatory: true, messageId }, body)
        // A message that nobody took is confirmed as well; its return is told with the next turn of the event loop.
        await new Promise(setImmediate)
        if (!returned.delete(messageId)) return
        // Somebody has deleted the queue: the next publisher makes it.
        void publisher.close().catch(() => {})
        publisher = undefined
        throw new Error(`there was no queue ${routingKey}`)
      },
      catch: (cause) => new RabbitUnavailable({ cause })
    })

  let listens = false
  /** What rings is heard now. */
  let hears = false
  /** When everything was looked at last, in milliseconds, and whether it is about to be. */
  let lookedAt = 0
  let looksSoon = false
  /** The latest alarm that could not be set. */
  let missedAt = -1

  const set: AlarmClock["set"] = (groups, at) =>
    Effect.forEach(
      new Set(groups),
      (group) =>
        Clock.currentTimeMillis.pipe(
          Effect.flatMap((now) => publish({ group, at: at.getTime() }, waitFor(at.getTime() - now))),
          policies.guard("webhook.alarm", { transient: () => true }),
          Effect.catch((error) => {
            missedAt = Math.max(missedAt, at.getTime())
            return Effect.logDebug("An alarm is not set", error)
          })
        ),
      { concurrency: 16, discard: true }
    )

  const heard = yield* Queue.unbounded<Heard | "look">()
  const lookSoon = () => {
    if (looksSoon) return
    looksSoon = true
    Queue.offerUnsafe(heard, "look")
  }
  let closing = false
  const unanswered = new Set<(status: ConsumerStatus) => void>()

  const hear = (message: AsyncMessage) => {
    const body = decodeBody(message.body)
    if (Option.isNone(body)) return ConsumerStatus.DROP
    if (closing) return ConsumerStatus.REQUEUE
    return new Promise<ConsumerStatus>((resolve) => {
      const answer = (status: ConsumerStatus) => {
        unanswered.delete(answer)
        resolve(status)
      }
      unanswered.add(answer)
      Queue.offerUnsafe(heard, { ...body.value, answer })
    })
  }

  const context = yield* Effect.context()
  /** From now on it is heard, or not. Either way, what rang meanwhile was not. */
  const turn = (to: boolean, reason: ReadonlyArray<string> = []) => {
    if (to === hears) return
    hears = to
    const line = to ? "Alarms are heard from RabbitMQ" : "Alarms are not heard from RabbitMQ for now"
    Effect.runForkWith(context)(Effect.logInfo(line, ...reason))
    lookSoon()
  }
  const lost = (error: unknown) => turn(false, [lastCause(error)])

  const consumer = connection.createConsumer(
    { queue: ringing, queueOptions: ringingQueue, qos: { prefetchCount }, concurrency: prefetchCount, lazy: true },
    hear
  )
  consumer.on("ready", () => turn(true))
  consumer.on("error", lost)
  connection.on("error", lost)
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      closing = true
      for (const answer of unanswered) answer(ConsumerStatus.REQUEUE)
      return goodbye(consumer.close(), publisher?.close())
    })
  )

  const sweeping = Effect.gen(function* () {
    yield* Effect.sleep(lookEveryMs)
    const sure = hears && lookedAt > missedAt
    if ((yield* Clock.currentTimeMillis) >= lookedAt + (sure ? sweepMs : lookEveryMs)) lookSoon()
  })
  yield* Effect.forkScoped(Effect.forever(sweeping))

  const rung: AlarmClock["rung"] = (look) =>
    Effect.gen(function* () {
      if (!listens) {
        listens = true
        consumer.start()
      }
      const arrived = yield* Queue.takeBetween(heard, 1, prefetchCount)
      const messages = arrived.filter((each): each is Heard => each !== "look")
      const answerAll = (status: ConsumerStatus) =>
        Effect.sync(() => {
          for (const { answer } of messages) answer(status)
        })
      return yield* Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const isEarly = ({ at }: Heard) => at > now
        yield* Effect.forEach(messages.filter(isEarly), ({ group, at }) => set([group], new Date(at)), {
          concurrency: 16,
          discard: true
        })
        if (messages.length === arrived.length) {
          return yield* look([...new Set(messages.filter((each) => !isEarly(each)).map(({ group }) => group))])
        }
        looksSoon = false
        const result = yield* look("all")
        lookedAt = now
        return result
      }).pipe(
        Effect.tap(answerAll(ConsumerStatus.ACK)),
        Effect.onError(() => answerAll(ConsumerStatus.REQUEUE))
      )
    })

  return { set, rung } satisfies AlarmClock
})
