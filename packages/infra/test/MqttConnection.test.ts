// Our end of an MQTT connection, against a broker that does as it is told, and not always as the standard says.
import { expect, test } from "bun:test"
import { createServer, type Socket } from "node:net"
import { ConfigProvider, Effect, Exit, Layer, type Scope } from "effect"
import mqtt, { type IConnectPacket, type Packet } from "mqtt-packet"
import { connect } from "../src/mqtt/MqttConnection.ts"
import * as MqttWhereNamed from "../src/mqtt/MqttWhereNamed.ts"
import { freePort } from "../src/runtime/Ports.ts"

interface Scripted {
  readonly url: string
  /** What clients sent, but for their pings. */
  readonly heard: () => ReadonlyArray<Packet>
  readonly send: (packet: Packet) => void
}

const protocolVersion = 5

/** A broker that answers a connection with this reason code, and takes every subscription and message. */
const scripted = (reasonCode = 0): Effect.Effect<Scripted, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<{ readonly url: string; heard: Array<Packet>; sockets: Array<Socket>; close: () => void }>(
        (resume) => {
          const heard: Array<Packet> = []
          const sockets: Array<Socket> = []
          const server = createServer((socket) => {
            sockets.push(socket)
            const answer = (packet: Packet) => socket.write(mqtt.generate(packet, { protocolVersion }))
            const parser = mqtt.parser({ protocolVersion })
            parser.on("packet", (packet: Packet) => {
              if (packet.cmd === "pingreq") return
              heard.push(packet)
              const messageId = packet.messageId ?? 0
              if (packet.cmd === "connect") answer({ cmd: "connack", reasonCode, sessionPresent: true })
              if (packet.cmd === "subscribe") answer({ cmd: "suback", messageId, granted: [1] })
              if (packet.cmd === "publish") answer({ cmd: "puback", messageId, reasonCode: 0 })
            })
            socket.on("data", (chunk) => void parser.parse(Buffer.from(chunk)))
            socket.on("error", () => {})
          })
          server.listen(0, "127.0.0.1", () => {
            const address = server.address()
            const port = typeof address === "object" && address !== null ? address.port : 0
            const close = () => {
              for (const socket of sockets) socket.destroy()
              server.close()
            }
            resume(Effect.succeed({ url: `mqtt://shop:secret%21@127.0.0.1:${port}`, heard, sockets, close }))
          })
        }
      ),
      ({ close }) => Effect.sync(close)
    ),
    ({ url, heard, sockets }) => ({
      url,
      heard: () => heard,
      send: (packet) => void sockets.at(-1)?.write(mqtt.generate(packet, { protocolVersion }))
    })
  )

const to = ({ url }: Scripted, receiveMaximum = 3) => {
  const broker = MqttWhereNamed.brokerOf(url)
  if (broker === undefined) throw new Error(`no broker: ${url}`)
  return connect(broker, { clientId: "shop", keptSeconds: 60, receiveMaximum }, ["a/+"])
}

const message = (messageId: number, qos: 0 | 1 = 1): Packet => ({
  cmd: "publish",
  topic: "a/b",
  payload: `${messageId}`,
  qos,
  dup: false,
  retain: false,
  ...(qos === 0 ? {} : { messageId }),
  properties: { userProperties: { traceparent: ["first", "second"] } }
})

const idsOf = (messages: ReadonlyArray<{ readonly payload: Uint8Array }>) =>
  messages.map(({ payload }) => Number(new TextDecoder().decode(payload)))

/** Looks until it is as wanted, at most 5 s. */
const eventually = <A>(look: () => A, wanted: (found: A) => boolean) =>
  Effect.gen(function* () {
    for (let tries = 0; tries < 500 && !wanted(look()); tries++) yield* Effect.sleep(10)
    return look()
  })

const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Effect.scoped(effect))

test("a session is asked for that outlives the connection, under the name and secret of the URL", () =>
  run(
    Effect.gen(function* () {
      const broker = yield* scripted()
      const { sessionPresent } = yield* to(broker)
      expect(sessionPresent).toBe(true)
      const [connected, subscribed] = broker.heard() as [IConnectPacket, Packet]
      expect(connected).toMatchObject({
        clientId: "shop",
        clean: false,
        username: "shop",
        properties: { sessionExpiryInterval: 60, receiveMaximum: 3 }
      })
      expect(String(connected.password)).toBe("secret!")
      expect(subscribed).toMatchObject({ cmd: "subscribe", subscriptions: [{ topic: "a/+", qos: 1 }] })
    })
  ))

test("messages are acknowledged when it is said, in their order, and not before", () =>
  run(
    Effect.gen(function* () {
      const broker = yield* scripted()
      const connection = yield* to(broker)
      broker.send(message(7))
      broker.send(message(8, 0))
      broker.send(message(9))
      const first = yield* connection.take(1)
      expect(first.map(({ topic, properties }) => [topic, properties])).toEqual([["a/b", { traceparent: "first" }]])
      const rest = [...(yield* connection.take(1)), ...(yield* connection.take(1))]
      expect(idsOf([...first, ...rest])).toEqual([7, 8, 9])
      // What is published goes out behind an acknowledgement that was sent before it.
      yield* connection.publish({ topic: "c", payload: new Uint8Array(), properties: {} })
      const acknowledged = () => broker.heard().flatMap(({ cmd, messageId }) => (cmd === "puback" ? [messageId] : []))
      expect(acknowledged()).toEqual([])
      yield* connection.acknowledge([...first, ...rest])
      expect(yield* eventually(acknowledged, ({ length }) => length === 2)).toEqual([7, 9])
    })
  ))

test("a broker that sends more than it may is not believed to have sent the rest: it is asked again", () =>
  run(
    Effect.gen(function* () {
      const broker = yield* scripted()
      const connection = yield* to(broker, 2)
      for (const id of [1, 2, 3]) broker.send(message(id))
      const first = yield* connection.take(1)
      yield* connection.publish({ topic: "c", payload: new Uint8Array(), properties: {} })
      yield* connection.acknowledge(first)
      broker.send(message(4))
      yield* connection.publish({ topic: "c", payload: new Uint8Array(), properties: {} })
      const second = yield* connection.take(10)
      expect(idsOf([...first, ...second])).toEqual([1, 2])
      yield* connection.acknowledge(second)
      const ended = yield* Effect.exit(connection.take(10))
      expect(String(ended)).toContain("the broker sent more than it may")
    })
  ))

test("a connection that is lost fails whoever waits on it", () =>
  run(
    Effect.gen(function* () {
      const broker = yield* scripted()
      const connection = yield* to(broker)
      broker.send({ cmd: "disconnect", reasonCode: 0x8e })
      expect(String(yield* Effect.exit(connection.take(1)))).toContain("another connection has taken over the session")
      const late = yield* Effect.exit(connection.publish({ topic: "c", payload: new Uint8Array(), properties: {} }))
      expect(Exit.isFailure(late)).toBe(true)
    })
  ))

test("a broker that refuses says why", () =>
  run(
    Effect.gen(function* () {
      const broker = yield* scripted(0x86)
      expect((yield* Effect.flip(to(broker))).reason).toBe("it does not know the user name or the password")
    })
  ))

const named = (url: string) =>
  Layer.build(MqttWhereNamed.layer).pipe(
    Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ MQTT_URL: url })))
  )

test("a broker that is named and does not take us is told of in a sentence, without the secret", () =>
  run(
    Effect.gen(function* () {
      const port = yield* Effect.promise(() => freePort())
      const nobody = yield* Effect.flip(named(`mqtt://shop:geheim@127.0.0.1:${port}`))
      expect(nobody.message).toMatch(new RegExp(`^MQTT_URL cannot be used: 127\\.0\\.0\\.1:${port}: [^\\n]+$`))
      expect(nobody.message).not.toContain("geheim")
      const refusing = yield* scripted(0x87)
      expect((yield* Effect.flip(named(refusing.url))).message).toEndWith(": it does not allow that")
      expect((yield* Effect.flip(named("http://geheim@x"))).message).toBe(
        "MQTT_URL cannot be used: expected mqtt://user:password@host:port"
      )
    })
  ))

test("only URLs of MQTT name a broker", () => {
  expect(MqttWhereNamed.brokerOf("mqtt://broker")).toMatchObject({
    host: "broker",
    port: 1883,
    secure: false,
    username: undefined
  })
  expect(MqttWhereNamed.brokerOf("mqtts://broker.example:1")).toMatchObject({
    host: "broker.example",
    port: 1,
    secure: true
  })
  expect(MqttWhereNamed.brokerOf("mqtts://broker")).toMatchObject({ port: 8883 })
  for (const url of ["broker:1883", "http://broker", "mqtt://", "mqtt://a%ZZ:b@broker", ""]) {
    expect([url, MqttWhereNamed.brokerOf(url)]).toEqual([url, undefined])
  }
})
