import { Effect, Layer, Option, Schema } from "effect"
import { FetchHttpClient, HttpClient, HttpClientRequest } from "effect/http"
import { ServerUnreachable } from "../../config/ServerUnreachable.ts"
import { Policies } from "../../policy/Policies.ts"
import { lastCause } from "../../runtime/LastCause.ts"
import { RegistryUnavailable, SchemaRefused, SchemaRegistry } from "./SchemaRegistry.ts"

const contentType = "application/vnd.schemaregistry.v1+json"

/** What the API says when it refuses. */
const decodeRefusal = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Struct({ message: Schema.String })))
const decodeConfig = Schema.decodeUnknownOption(
  Schema.fromJsonString(Schema.Struct({ compatibilityLevel: Schema.String }))
)
const decodeVersion = Schema.decodeUnknownOption(
  Schema.fromJsonString(
    Schema.Struct({ version: Schema.Int, schema: Schema.fromJsonString(Schema.Record(Schema.String, Schema.Unknown)) })
  )
)
const decodeVerdict = Schema.decodeUnknownOption(
  Schema.fromJsonString(
    Schema.Struct({ is_compatible: Schema.Boolean, messages: Schema.optionalKey(Schema.Array(Schema.String)) })
  )
)

/** Levels under which whatever was written is still read. */
const backward = new Set(["BACKWARD", "BACKWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"])

interface Answer {
  readonly status: number
  readonly body: string
}

/** Where it is, who asks, and what of it may be told. */
const parse = (url: string) => {
  const { protocol, origin, pathname, username, password } = URL.canParse(url)
    ? new URL(url)
    : { protocol: "", origin: "", pathname: "", username: "", password: "" }
  if (!/^https?:$/.test(protocol)) return undefined
  return {
    base: `${origin}${pathname.replace(/\/+$/, "")}`,
    address: origin,
    user: username === "" ? undefined : { name: decodeURIComponent(username), password: decodeURIComponent(password) }
  }
}

const reasonOf = ({ body, status }: Answer): string =>
  Option.match(decodeRefusal(body), {
    onNone: () => `status ${status}`,
    onSome: ({ message }) => message.replaceAll(/\s+/g, " ").slice(0, 500)
  })

const unreadable = ({ status }: Answer) =>
  new RegistryUnavailable({ reason: `it answered what makes no sense (status ${status})` })

/**
 * A registry with the API of Confluent's (its own, Apicurio under /apis/ccompat/v7, Karapace, Redpanda). At the start it is
 * seen to that BACKWARD or more is its global level: a registry may ignore the level of a single subject.
 */
export const layer = (url: string) =>
  Layer.effect(
    SchemaRegistry,
    Effect.gen(function* () {
      const place = parse(url)
      if (place === undefined)
        return yield* new ServerUnreachable({
          variable: "SCHEMA_REGISTRY_URL",
          address: "",
          reason: "expected http://host:port"
        })
      const { base, address, user } = place
      const http = yield* HttpClient.HttpClient
      const { guard } = yield* Policies

      const ask = (request: HttpClientRequest.HttpClientRequest): Effect.Effect<Answer, RegistryUnavailable> =>
        Effect.gen(function* () {
          const authorised =
            user === undefined ? request : HttpClientRequest.basicAuth(request, user.name, user.password)
          const response = yield* http.execute(HttpClientRequest.accept(authorised, contentType))
          const answer = { status: response.status, body: yield* response.text }
          if (answer.status >= 500) return yield* new RegistryUnavailable({ reason: reasonOf(answer) })
          return answer
        }).pipe(
          guard("schema.registry", { transient: () => true }),
          Effect.mapError((error) =>
            error._tag === "RegistryUnavailable" ? error : new RegistryUnavailable({ reason: lastCause(error) })
          ),
          Effect.withTracerEnabled(false)
        )
      const get = (path: string) => ask(HttpClientRequest.get(`${base}${path}`))
      const send = (method: "POST" | "PUT", path: string, body: unknown) =>
        ask(
          HttpClientRequest.make(method)(`${base}${path}`).pipe(
            HttpClientRequest.bodyText(JSON.stringify(body), contentType)
          )
        )

      const level = Effect.flatMap(get("/config"), (answer) =>
        Option.match(decodeConfig(answer.body), {
          onNone: () => Effect.fail(unreadable(answer)),
          onSome: ({ compatibilityLevel }) => Effect.succeed(compatibilityLevel)
        })
      )
      const insist = Effect.gen(function* () {
        if (backward.has(yield* level)) return
        yield* send("PUT", "/config", { compatibility: "BACKWARD" })
        const now = yield* level
        if (!backward.has(now)) {
          return yield* new RegistryUnavailable({ reason: `its compatibility level stays ${now} and is not BACKWARD` })
        }
      })
      yield* Effect.mapError(
        insist,
        ({ reason }) => new ServerUnreachable({ variable: "SCHEMA_REGISTRY_URL", address, reason })
      )

      const subjectPath = (subject: string) => `/subjects/${encodeURIComponent(subject)}/versions`
      const refused = (subject: string, answer: Answer) => new SchemaRefused({ subject, reason: reasonOf(answer) })
      const asSent = (schema: object) => ({ schemaType: "JSON", schema: JSON.stringify(schema) })

      return SchemaRegistry.of({
        register: Effect.fnUntraced(function* (subject, schema) {
          const answer = yield* send("POST", subjectPath(subject), asSent(schema))
          if (answer.status === 409 || answer.status === 422) return yield* refused(subject, answer)
          if (answer.status !== 200) return yield* new RegistryUnavailable({ reason: reasonOf(answer) })
        }),
        check: Effect.fnUntraced(function* (subject, schema) {
          const path = `/compatibility${subjectPath(subject)}/latest?verbose=true`
          const answer = yield* send("POST", path, asSent(schema))
          // Nothing is there that it could break.
          if (answer.status === 404) return
          if (answer.status === 422) return yield* refused(subject, answer)
          const verdict = decodeVerdict(answer.body)
          if (Option.isNone(verdict)) return yield* unreadable(answer)
          const { is_compatible, messages = [] } = verdict.value
          if (is_compatible) return
          return yield* new SchemaRefused({ subject, reason: messages.join("; ") || "it is not BACKWARD compatible" })
        }),
        latest: Effect.fnUntraced(function* (subject) {
          const answer = yield* get(`${subjectPath(subject)}/latest`)
          if (answer.status === 404) return Option.none()
          const found = decodeVersion(answer.body)
          return Option.isNone(found) ? yield* unreadable(answer) : found
        })
      })
    })
  ).pipe(Layer.provide(FetchHttpClient.layer))
