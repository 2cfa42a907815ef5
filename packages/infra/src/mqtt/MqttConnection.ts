// One connection to an MQTT 5 broker (OASIS MQTT 5.0) that acknowledges what it receives when it is told to, in order, and not
// before. The client libraries acknowledge one message before they look at the next.
import { connect as connectTcp } from "node:net"
import { connect as connectTls } from "node:tls"
import { Cause, Deferred, Effect, Exit, Queue, Redacted, Semaphore } from "effect"
import mqtt, { type IConnackPacket, type IPublishPacket, type Packet } from "mqtt-packet"
import { lastCause } from "../runtime/LastCause.ts"
import { type DeviceMessage, MqttUnavailable, type Notice } from "./Devices.ts"

/** A broker, and who we are to it. */
export interface Broker {
  readonly host: string
  readonly port: number
  readonly secure: boolean
  readonly username: string | undefined
  readonly password: Redacted.Redacted | undefined
}

/** What the broker keeps for this client. */
export interface Session {
  /** Empty: the broker thinks of one. */
  readonly clientId: string
  /** Seconds that the broker keeps the session, and messages for it, when the connection is lost; 0: not at all. */
  readonly keptSeconds: number
  /** Messages that the broker may send before the first of them is acknowledged. */
  readonly receiveMaximum: number
}

/** A message of QoS 1 has an id under which it is acknowledged; one of QoS 0 has none. */
export interface Received extends DeviceMessage {
  readonly packetId: number | undefined
}

const protocolVersion = 5

/** The largest packet that is taken, in bytes; the broker drops larger ones. */
const maximumPacketSize = 256 * 1_024

/** Seconds after which a side that hears nothing gives up. */
const keepAliveSeconds = 30

/** Milliseconds for a connection to come about, and for each answer of the broker, which may be busy with what it keeps. */
const answerWithinMs = 15_000

/** Reason codes from here on are refusals (MQTT 5.0, section 2.4). */
const firstRefusal = 0x80

const refusals: Readonly<Record<number, string>> = {
  0x84: "it does not speak MQTT 5",
  0x86: "it does not know the user name or the password",
  0x87: "it does not allow that",
  0x8b: "it is shutting down",
  0x8d: "it heard nothing from us for too long",
  0x8e: "another connection has taken over the session",
  0x97: "a quota is exceeded"
}

const sentence = (code: number) => refusals[code] ?? `it answers with reason code ${code}`

const unavailable = (reason: string) => new MqttUnavailable({ reason })

type Stream = ReturnType<typeof connectTcp>

/** A stream of bytes to the broker. */
const open = ({ host, port, secure }: Broker) =>
  Effect.callback<Stream, MqttUnavailable>((resume) => {
    const socket: Stream = secure ? connectTls({ host, port, servername: host }) : connectTcp({ host, port })
    const refused = (error: Error) => resume(Effect.fail(unavailable(lastCause(error))))
    socket.once("error", refused)
    socket.once(secure ? "secureConnect" : "connect", () => {
      socket.off("error", refused)
      // Told once more by whoever takes the stream; until then nobody else listens.
      socket.on("error", () => {})
      resume(Effect.succeed(socket))
    })
    return Effect.sync(() => socket.destroy())
  })

const isText = (value: unknown): value is string => typeof value === "string"

const toReceived = ({ topic, payload, messageId, qos, properties }: IPublishPacket): Received => ({
  topic,
  payload: isText(payload) ? new TextEncoder().encode(payload) : payload,
  packetId: qos === 0 ? undefined : messageId,
  properties: Object.fromEntries(
    Object.entries(properties?.userProperties ?? {}).flatMap(([key, value]) => {
      const first = Array.isArray(value) ? value[0] : value
      return isText(first) ? [[key, first]] : []
    })
  )
})

/** Connects, and subscribes with QoS 1. */
export const connect = Effect.fnUntraced(function* (broker: Broker, session: Session, topics: ReadonlyArray<string>) {
  const socket = yield* Effect.acquireRelease(
    open(broker).pipe(
      Effect.timeoutOrElse({
        duration: answerWithinMs,
        orElse: () => Effect.fail(unavailable(`no connection in ${answerWithinMs / 1_000} s`))
      })
    ),
    (socket) => Effect.sync(() => socket.destroy())
  )
  const arrived = yield* Queue.unbounded<Received, MqttUnavailable>()
  const welcome = Deferred.makeUnsafe<IConnackPacket, MqttUnavailable>()
  /** Answers that are waited for, by packet id. */
  const waiting = new Map<number, Deferred.Deferred<ReadonlyArray<number>, MqttUnavailable>>()
  const publishing = yield* Semaphore.make(16)
  let unacknowledged = 0
  /**
   * The broker has sent more than it may (Mosquitto 2.0 does, what it kept over a restart). From the first of those on nothing is
   * taken, so that the order stays; they come again with the next connection, when all before them are acknowledged.
   */
  let tooMany = false
  let over: MqttUnavailable | undefined
  let heard = true

  const send = (packet: Packet) => {
    if (over === undefined) socket.write(mqtt.generate(packet, { protocolVersion }))
  }

  const end = (reason: string) => {
    if (over !== undefined) return
    over = unavailable(reason)
    const exit = Exit.fail(over)
    Queue.failCauseUnsafe(arrived, Cause.fail(over))
    Deferred.doneUnsafe(welcome, exit)
    for (const each of waiting.values()) Deferred.doneUnsafe(each, exit)
    waiting.clear()
    socket.destroy()
  }

  const answered = (messageId: number | undefined, codes: ReadonlyArray<number>) => {
    if (messageId === undefined) return
    const asked = waiting.get(messageId)
    waiting.delete(messageId)
    if (asked !== undefined) Deferred.doneUnsafe(asked, Exit.succeed(codes))
  }

  const take = (packet: IPublishPacket) => {
    const room = session.receiveMaximum - Queue.sizeUnsafe(arrived)
    // Nobody waits for what was published without an acknowledgement: it goes where there is no room, as QoS 0 allows.
    if (packet.qos === 0 && room <= 0) return
    if (packet.qos !== 0) {
      tooMany ||= unacknowledged === session.receiveMaximum
      if (tooMany) return
      unacknowledged += 1
    }
    Queue.offerUnsafe(arrived, toReceived(packet))
  }

  const receive = (packet: Packet) => {
    heard = true
    switch (packet.cmd) {
      case "connack":
        Deferred.doneUnsafe(welcome, Exit.succeed(packet))
        return
      case "publish":
        return take(packet)
      case "puback":
        return answered(packet.messageId, [packet.reasonCode ?? 0])
      case "suback":
        return answered(packet.messageId, packet.granted.map(Number))
      case "disconnect":
        return end(`the broker ended the connection: ${sentence(packet.reasonCode ?? 0)}`)
    }
  }

  const parser = mqtt.parser({ protocolVersion })
  parser.on("packet", receive)
  parser.on("error", (error: Error) => end(`the broker says what is no MQTT: ${error.message}`))
  socket.on("data", (chunk: Uint8Array) => void parser.parse(Buffer.from(chunk)))
  socket.on("error", (error: Error) => end(lastCause(error)))
  socket.on("close", () => end("the connection was closed"))
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      send({ cmd: "disconnect", reasonCode: 0 })
      socket.end()
      end("it is no longer needed")
    })
  )

  const within = <A>(answer: Effect.Effect<A, MqttUnavailable>) =>
    Effect.timeoutOrElse(answer, {
      duration: answerWithinMs,
      orElse: () => Effect.fail(unavailable(`no answer in ${answerWithinMs / 1_000} s`))
    })

  let lastId = 0
  /** Sends a packet that is answered under its id; the reason codes of the answer. */
  const ask = (packet: (messageId: number) => Packet) =>
    Effect.suspend(() => {
      if (over !== undefined) return Effect.fail(over)
      // Few are under way at a time, so the next id is not in use.
      lastId = (lastId % 0xffff) + 1
      const answer = Deferred.makeUnsafe<ReadonlyArray<number>, MqttUnavailable>()
      waiting.set(lastId, answer)
      send(packet(lastId))
      return within(Deferred.await(answer))
    })

  send({
    cmd: "connect",
    protocolId: "MQTT",
    protocolVersion,
    clientId: session.clientId,
    clean: session.keptSeconds === 0,
    keepalive: keepAliveSeconds,
    ...(broker.username === undefined ? {} : { username: broker.username }),
    ...(broker.password === undefined ? {} : { password: Buffer.from(Redacted.value(broker.password)) }),
    properties: {
      sessionExpiryInterval: session.keptSeconds,
      receiveMaximum: session.receiveMaximum,
      maximumPacketSize
    }
  })
  const { reasonCode = 0, sessionPresent } = yield* within(Deferred.await(welcome))
  if (reasonCode >= firstRefusal) return yield* unavailable(sentence(reasonCode))

  const alive = Effect.gen(function* () {
    heard = false
    send({ cmd: "pingreq" })
    yield* Effect.sleep(keepAliveSeconds * 500)
    if (!heard) end("the broker is silent")
  })
  yield* Effect.forkScoped(Effect.forever(alive))

  if (topics.length > 0) {
    const granted = yield* ask((messageId) => ({
      cmd: "subscribe",
      messageId,
      subscriptions: topics.map((topic) => ({ topic, qos: 1, nl: false, rap: false, rh: 0 }))
    }))
    const refused = granted.find((code) => code >= firstRefusal)
    if (refused !== undefined) return yield* unavailable(`it refuses to be subscribed to: ${sentence(refused)}`)
  }

  return {
    /** Whether the broker still knew the session: without one, messages since the last connection may be lost. */
    sessionPresent,
    /** What has arrived, at least one and at most so many; waits for it. */
    take: (most: number) => Queue.takeBetween(arrived, 1, most),
    /** To be done in the order of arrival (MQTT 5.0, section 4.6). */
    acknowledge: (messages: ReadonlyArray<Received>) =>
      Effect.sync(() => {
        socket.cork()
        for (const { packetId } of messages) {
          if (packetId === undefined) continue
          unacknowledged -= 1
          send({ cmd: "puback", messageId: packetId, reasonCode: 0 })
        }
        socket.uncork()
        if (tooMany && unacknowledged === 0) end("the broker sent more than it may; the rest comes again")
      }),
    /** Publishes with QoS 1; whether the broker took it. */
    publish: ({ topic, payload, properties }: Notice) =>
      ask((messageId) => ({
        cmd: "publish",
        messageId,
        topic,
        payload: Buffer.from(payload),
        qos: 1,
        dup: false,
        retain: false,
        // The codec counts properties that are empty wrongly.
        ...(Object.keys(properties).length === 0 ? {} : { properties: { userProperties: { ...properties } } })
      })).pipe(
        Effect.map((codes) => codes.every((code) => code < firstRefusal)),
        publishing.withPermits(1)
      )
  }
})
