// What devices tell over MQTT becomes stock: in order, in batches, and acknowledged when it is committed or in the dead
// letters.
import { Cause, Effect, Metric, Option, Result, Schema } from "effect"
import { SqlClient } from "effect/sql"
import {
  type DeviceDelta,
  DeviceDelta as DeviceDeltaSchema,
  DeviceMessage,
  DeltaRefused,
  type Outcome
} from "@merkato/domain/inventory/DeviceDelta"
import { DeviceDeltaReceived } from "@merkato/domain/inventory/InventoryEvents"
import { EventId, Id, next } from "@merkato/domain/kernel/Ids"
import { emptyTraceParent } from "@merkato/domain/kernel/RequestContext"
import * as Consumer from "@merkato/infra/events/Consumer"
import { gaveUp, letterOf } from "@merkato/infra/events/DeadLetters"
import { type BusMessage, EventBus, patient } from "@merkato/infra/events/EventBus"
import { malformedType } from "@merkato/infra/events/kafka/Message"
import { producerOf } from "@merkato/infra/events/Relay"
import { stamp, type Stamp } from "@merkato/infra/events/Stamp"
import { type DeviceMessage as Message, Devices, type Notice } from "@merkato/infra/mqtt/Devices"
import { Policies } from "@merkato/infra/policy/Policies"
import * as Tracing from "@merkato/infra/telemetry/Tracing"
import { Deltas } from "./Deltas.ts"

/** What devices publish to (contracts: MQTT). */
const topics = "iot/inventory/+/delta"

/** Messages that are applied in one transaction, at most. */
const mostTogether = 200

/** Bytes of a message, at most: what is longer is nonsense. */
const mostBytes = 4_096

/** Characters of a message that a dead letter keeps. */
const keptCharacters = 2_000

/** The group under whose name dead letters of devices lie, and which tries them again when they are put back. */
const group = "inventory.device-deltas"

const taken = Metric.counter("mqtt_deltas_total", {
  description: "Messages of devices, by what became of them",
  incremental: true
})
const connected = Metric.gauge("mqtt_connected", { description: "Whether devices are heard (1) or not (0)" })

const decodeMessage = Schema.decodeUnknownEffect(Schema.fromJsonString(DeviceMessage))
const decodeDelta = Schema.decodeUnknownEffect(DeviceDeltaSchema)

const names = { Applied: "applied", Duplicate: "duplicate", DeltaRefused: "refused" } as const

const isTraceParent = /^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$/
const isCorrelation = /^[\x21-\x7e]{1,128}$/

/** A message as it arrived: what it says, or why it says nothing. */
interface Arrival {
  readonly message: Message
  readonly traceParent: string
  readonly correlationId: string
  readonly read: Result.Result<DeviceDelta, DeltaRefused>
}

const malformed = (reason: string) => new DeltaRefused({ code: "malformed_message", reason })

const textOf = ({ payload }: Message) => new TextDecoder().decode(payload)

const read = Effect.fnUntraced(function* (message: Message) {
  if (message.payload.length > mostBytes) return yield* malformed(`The message is longer than ${mostBytes} bytes`)
  const said = yield* decodeMessage(textOf(message))
  return yield* decodeDelta({ ...said, sku: message.topic.split("/")[2] })
})

const arrival = Effect.fnUntraced(function* (message: Message) {
  const found = yield* Effect.result(
    Effect.catchTag(read(message), "SchemaError", (error) => Effect.fail(malformed(error.message)))
  )
  const { traceparent, "correlation-id": correlationId } = message.properties
  return {
    message,
    read: found,
    traceParent: traceparent !== undefined && isTraceParent.test(traceparent) ? traceparent : emptyTraceParent,
    correlationId: correlationId !== undefined && isCorrelation.test(correlationId) ? correlationId : yield* next
  } satisfies Arrival
})

/** What the dead letters keep of a message. */
const letter = Effect.fnUntraced(function* ({ message, read }: Arrival, refused: DeltaRefused, at: Stamp) {
  const sku = message.topic.split("/")[2] ?? ""
  const known = Result.isSuccess(read)
  const key = Id.make(sku.replace(/[^A-Za-z0-9_-]/g, "-").slice(0, 64) || "-")
  const event: BusMessage = {
    topic: DeviceDeltaReceived.topic,
    key,
    traceParent: at.traceParent,
    envelope: {
      eventId: EventId.make(yield* next),
      eventType: known ? DeviceDeltaReceived.type : malformedType,
      occurredAt: at.occurredAt.toISOString(),
      producer: producerOf("inventory"),
      traceId: at.traceParent.slice(3, 35),
      correlationId: at.correlationId,
      schemaVersion: "1.0",
      partitionKey: key,
      region: at.region,
      aggregateVersion: 0,
      payload: known ? read.success : { topic: message.topic, value: textOf(message).slice(0, keptCharacters) }
    }
  }
  return letterOf(event, { consumerGroup: group, attempts: 1, reason: refused.message })
})

/** What who listens to the broker is told of a message that was refused. */
const notice = ({ message }: Arrival, { code, reason }: DeltaRefused): Notice => ({
  topic: `${message.topic}/dlq`,
  payload: new TextEncoder().encode(
    JSON.stringify({ code, reason, message: textOf(message).slice(0, keptCharacters) })
  ),
  properties: message.properties
})

const isSampled = ({ traceParent }: Arrival) => traceParent.endsWith("1")

/** Consecutive messages that may be applied together: one that is traced is applied alone, as a span of its own trace. */
const runsOf = (arrivals: ReadonlyArray<Arrival>): ReadonlyArray<ReadonlyArray<Arrival>> => {
  const runs: Array<Array<Arrival>> = []
  for (const each of arrivals) {
    const last = runs.at(-1)
    const [before] = last ?? []
    if (last === undefined || before === undefined || isSampled(before) || isSampled(each)) runs.push([each])
    else last.push(each)
  }
  return runs
}

const traced =
  ([first]: ReadonlyArray<Arrival>) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>) => {
    if (first === undefined || !isSampled(first)) return Effect.withTracerEnabled(effect, false)
    const { topic, properties } = first.message
    return effect.pipe(
      Tracing.withSpan(`receive ${topics}`, {
        kind: "consumer",
        attributes: {
          "messaging.system": "mqtt",
          "messaging.destination.name": topic,
          "messaging.message.body.size": first.message.payload.length,
          ...(properties["device"] === undefined ? {} : { "messaging.client.id": properties["device"] })
        }
      }),
      Tracing.continuing(first.traceParent, first.correlationId)
    )
  }

/** Each message's own stamp: of the span around it when it is traced, else of what it came with. */
const stampOf = ({ traceParent, correlationId }: Arrival) =>
  Effect.withFiber((fiber) =>
    fiber.cache.tracerEnabled ? stamp : Tracing.continuing(traceParent, correlationId)(stamp)
  )

const tell = (cause: Cause.Cause<unknown>) => Effect.logWarning("Messages of devices wait", cause)

/** What takes messages off a connection: applied, or in the dead letters, when it returns. It does not fail, and waits instead. */
const make = Effect.gen(function* () {
  const deltas = yield* Deltas
  const bus = yield* EventBus
  const { guard } = yield* Policies

  /** Under the policy of devices, again and again while the shop's own servers are away; only defects are left. */
  const persistently = <A, E extends { readonly _tag: string }>(effect: Effect.Effect<A, E>) =>
    effect.pipe(
      guard("mqtt.ingest", { transient: () => true }),
      Effect.tapCause((cause) => (Cause.hasInterruptsOnly(cause) ? Effect.void : tell(cause))),
      Effect.retry(patient),
      Effect.orDie
    )

  const apply = (arrived: Parameters<typeof deltas.apply>[0]) =>
    arrived.length === 0 ? Effect.succeed([]) : persistently(deltas.apply(arrived))

  /** As one transaction; one by one when the shop stumbles over one of them, which then is refused. */
  const applyAll = (arrived: Parameters<typeof deltas.apply>[0]): Effect.Effect<ReadonlyArray<Outcome>> =>
    Effect.catchCause(apply(arrived), (cause) => {
      if (Cause.hasInterruptsOnly(cause)) return Effect.interrupt
      if (arrived.length > 1) {
        return Effect.map(
          Effect.forEach(arrived, (each) => applyAll([each])),
          (outcomes) => outcomes.flat()
        )
      }
      return Effect.as(tell(cause), [malformed("The shop stumbled over it, and its log says how")])
    })

  const take = (arrivals: ReadonlyArray<Arrival>) =>
    Effect.gen(function* () {
      const stamps = yield* Effect.forEach(arrivals, stampOf)
      const readable = arrivals.flatMap(({ read }, index) => {
        const stamp = stamps[index]
        return Result.isSuccess(read) && stamp !== undefined ? [{ delta: read.success, stamp }] : []
      })
      const applied = (yield* applyAll(readable)).values()
      const letters: Array<BusMessage> = []
      const notices: Array<Notice> = []
      for (const [index, each] of arrivals.entries()) {
        const [outcome, at] = [Result.isFailure(each.read) ? each.read.failure : applied.next().value, stamps[index]]
        if (outcome === undefined || at === undefined) continue
        yield* Metric.update(Metric.withAttributes(taken, { outcome: names[outcome._tag] }), 1)
        if (outcome._tag !== "DeltaRefused") continue
        letters.push(yield* letter(each, outcome, at))
        notices.push(notice(each, outcome))
      }
      if (letters.length > 0) yield* persistently(bus.publish(letters))
      for (const each of letters) yield* gaveUp(each)
      return notices
    })

  return Effect.fnUntraced(function* (messages: ReadonlyArray<Message>) {
    const arrivals = yield* Effect.forEach(messages, arrival)
    const notices = yield* Effect.forEach(runsOf(arrivals), (run) => take(run).pipe(traced(run)))
    return notices.flat()
  })
})

/** Milliseconds before who is not the one that hears devices asks again, and before a lost connection is made again. */
const pauseMs = 1_000

/** Devices are heard by one process of all that are like it: a broker keeps one session for the shop. */
const alone = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const connection = yield* sql.reserve
  const lock = (verb: string) =>
    connection.execute(`select ${verb}(hashtext('merkato.devices')) as mine`, [], undefined)
  const [answer] = yield* lock("pg_try_advisory_lock")
  if (answer?.["mine"] !== true) return false
  yield* Effect.addFinalizer(() => Effect.ignore(lock("pg_advisory_unlock")))
  return true
})

/** Hears devices for good, where there is a broker. */
export const listening = Effect.gen(function* () {
  const devices = yield* Effect.serviceOption(Devices)
  if (Option.isNone(devices)) return yield* Effect.never
  const { limits } = yield* Policies
  const handle = yield* make
  const life = Effect.scoped(
    Effect.gen(function* () {
      if (!(yield* alone)) return
      const { bulkhead } = yield* limits("mqtt.ingest")
      return yield* devices.value.receive({
        topics: [topics],
        buffer: Math.max(bulkhead?.waiting ?? mostTogether, 1),
        together: mostTogether,
        connected: Metric.update(connected, 1),
        handle
      })
    })
  )
  return yield* Effect.forever(
    life.pipe(
      Effect.catch((error) => Effect.logWarning("Devices are not heard", error)),
      Effect.ensuring(Metric.update(connected, 0)),
      Effect.andThen(Effect.sleep(pauseMs))
    )
  )
}).pipe(Effect.withTracerEnabled(false))

/** Tries again what was refused, once somebody has put it back from the dead letters. */
export const refused = Consumer.make({
  group,
  topic: DeviceDeltaReceived.topic,
  eventTypes: [DeviceDeltaReceived.type],
  mode: "react",
  handle: Tracing.fn("Inventory.retryDelta")(function* ({ eventId, payload }) {
    const delta = yield* decodeDelta(payload)
    // With a name of its own where the device gave it none: an event may come twice.
    const named = { ...delta, messageId: delta.messageId ?? `event:${eventId}` }
    const [outcome] = yield* (yield* Deltas).apply([{ delta: named, stamp: yield* stamp }])
    if (outcome?._tag === "DeltaRefused") return yield* outcome
  })
})
