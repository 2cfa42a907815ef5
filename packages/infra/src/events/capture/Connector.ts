/** Kafka Connect's side of change data capture (ADR 27): a connector of Debezium's for each database. */
import { type Duration, Effect, Layer, Option, type Redacted, Redacted as Secret, Schema } from "effect"
import { FetchHttpClient, HttpClient, HttpClientRequest } from "effect/http"
import { ServerUnreachable } from "../../config/ServerUnreachable.ts"
import { Policies } from "../../policy/Policies.ts"
import { lastCause } from "../../runtime/LastCause.ts"
import { headers, messagePrefix, publication, slotOf } from "./Capture.ts"

const text = "org.apache.kafka.connect.storage.StringConverter"

type Settings = Readonly<Record<string, string>>

/** What Debezium is told: messages of the log become events with the key, headers and text that the relay gives them. */
export const settingsOf = (databaseUrl: Redacted.Redacted): { readonly name: string; readonly settings: Settings } => {
  const { hostname, port, username, password, pathname, searchParams } = new URL(Secret.value(databaseUrl))
  const database = decodeURIComponent(pathname.slice(1))
  const name = slotOf(database)
  const ssl = searchParams.get("sslmode")
  return {
    name,
    settings: {
      name,
      "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
      "tasks.max": "1",
      "plugin.name": "pgoutput",
      "database.hostname": hostname.replaceAll(/[[\]]/g, ""),
      "database.port": port === "" ? "5432" : port,
      "database.user": decodeURIComponent(username),
      "database.password": decodeURIComponent(password),
      "database.dbname": database,
      ...(ssl === null ? {} : { "database.sslmode": ssl }),
      "topic.prefix": name,
      "slot.name": name,
      "publication.name": publication,
      "publication.autocreate.mode": "disabled",
      // Messages alone, from where the slot began: no table is read, and none is captured.
      "snapshot.mode": "no_data",
      "table.include.list": "none[.]none",
      "message.prefix.include.list": messagePrefix.replaceAll(".", "[.]"),
      "poll.interval.ms": "20",
      // Before it connects again to a database that it has lost, again and again; its own default is ten times as long.
      "retriable.restart.connector.wait.ms": "1000",
      transforms: "decode,route,drop",
      "transforms.decode.type": "io.debezium.connector.postgresql.transforms.DecodeLogicalDecodingMessageContent",
      "transforms.route.type": "io.debezium.transforms.outbox.EventRouter",
      "transforms.route.table.field.event.id": "id",
      "transforms.route.table.field.event.key": "key",
      "transforms.route.table.field.event.payload": "payload",
      "transforms.route.route.by.field": "topic",
      "transforms.route.route.topic.replacement": "${routedByValue}",
      "transforms.route.table.fields.additional.placement": Object.entries(headers)
        .map(([header, field]) => `${field}:header:${header}`)
        .join(","),
      // The router's own header; ours is ce_id.
      "transforms.drop.type": "org.apache.kafka.connect.transforms.DropHeaders",
      "transforms.drop.headers": "id",
      "key.converter": text,
      "value.converter": text,
      "header.converter": text
    }
  }
}

const decodeSettings = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Record(Schema.String, Schema.String)))
const decodeRefusal = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Struct({ message: Schema.String })))
const Part = Schema.Struct({ state: Schema.String, trace: Schema.optionalKey(Schema.String) })
const decodeStatus = Schema.decodeUnknownOption(
  Schema.fromJsonString(Schema.Struct({ connector: Part, tasks: Schema.Array(Part) }))
)

const isSame = (a: Settings, b: Settings): boolean =>
  Object.keys(a).length === Object.keys(b).length && Object.entries(a).every(([key, value]) => b[key] === value)

const make = Effect.fnUntraced(function* (connectUrl: string) {
  const { protocol, origin, pathname } = URL.canParse(connectUrl)
    ? new URL(connectUrl)
    : { protocol: "", origin: "", pathname: "" }
  if (!/^https?:$/.test(protocol))
    return yield* new ServerUnreachable({ variable: "CONNECT_URL", address: "", reason: "expected http://host:port" })
  const http = yield* HttpClient.HttpClient
  const { guard } = yield* Policies
  const failed = (reason: string) => new ServerUnreachable({ variable: "CONNECT_URL", address: origin, reason })

  const ask = (method: "GET" | "POST" | "PUT", path: string, body?: Settings) => {
    const request = HttpClientRequest.make(method)(`${origin}${pathname.replace(/\/+$/, "")}/connectors/${path}`)
    return Effect.gen(function* () {
      const response = yield* http.execute(
        body === undefined ? request : HttpClientRequest.bodyText(request, JSON.stringify(body), "application/json")
      )
      const answer = { status: response.status, body: yield* response.text }
      // 409: the workers are agreeing on who does what.
      if (answer.status >= 500 || answer.status === 409)
        return yield* failed(`it answered with status ${answer.status}`)
      return answer
    }).pipe(
      guard("relay.configure", { transient: () => true }),
      Effect.mapError((error) => (error._tag === "ServerUnreachable" ? error : failed(lastCause(error)))),
      Effect.withTracerEnabled(false)
    )
  }

  /** Tells Connect of it, unless it knows: a connector that is told anything begins anew. */
  const configure = Effect.fnUntraced(function* (databaseUrl: Redacted.Redacted) {
    const { name, settings } = settingsOf(databaseUrl)
    const known = decodeSettings((yield* ask("GET", `${name}/config`)).body)
    if (Option.isSome(known) && isSame(known.value, settings)) return name
    const { status, body } = yield* ask("PUT", `${name}/config`, settings)
    if (status === 200 || status === 201) return name
    const said = Option.match(decodeRefusal(body), {
      onNone: () => `status ${status}`,
      onSome: ({ message }) => message.replaceAll(/\s+/g, " ").slice(0, 500)
    })
    return yield* failed(`it does not take the connector ${name}: ${said}`)
  })

  /** A connector that gave up is told of, and started again. */
  const lookAfter = Effect.fnUntraced(function* (name: string) {
    const status = decodeStatus((yield* ask("GET", `${name}/status`)).body)
    if (Option.isNone(status)) return
    const broken = [status.value.connector, ...status.value.tasks].filter(({ state }) => state === "FAILED")
    if (broken.length === 0) return
    const reasons = broken.map(({ trace = "" }) => trace.split("\n")[0])
    yield* Effect.logError(`The connector ${name} has failed, and is started again`, ...reasons)
    yield* ask("POST", `${name}/restart?includeTasks=true&onlyFailed=true`)
  })

  return { configure, lookAfter }
})

/** Has a connector for each of these databases, and looks every `lookEvery` whether one has failed. */
export const layer = (
  connectUrl: string,
  databases: ReadonlyArray<Redacted.Redacted>,
  lookEvery: Duration.Input = "10 seconds"
) =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const { configure, lookAfter } = yield* make(connectUrl)
      const names = yield* Effect.forEach(databases, configure)
      const look = Effect.forEach(new Set(names), lookAfter, { discard: true }).pipe(
        Effect.catch(({ message }) => Effect.logWarning("Nobody looks after the connectors", message))
      )
      yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(lookEvery), look)))
    })
  ).pipe(Layer.provide(FetchHttpClient.layer))
