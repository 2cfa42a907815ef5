import { lookup } from "node:dns/promises"
import { type ClientRequest, request as plain } from "node:http"
import { request as secure } from "node:https"
import { isIP } from "node:net"
import { Config, Context, Effect, Layer, Schema } from "effect"
import { isPublic } from "./PublicAddress.ts"

/** No answer came: why. */
export class NotReached extends Schema.TaggedError<NotReached>()("NotReached", { reason: Schema.String }) {
  override get message() {
    return this.reason
  }
}

export interface Address {
  readonly address: string
  readonly family: number
}

/** What a host name stands for. */
export class Resolver extends Context.Service<
  Resolver,
  { readonly addresses: (hostname: string) => Effect.Effect<ReadonlyArray<Address>, NotReached> }
>()("merkato/infra/Resolver") {
  /** As the machine resolves names. */
  static readonly layer = Layer.succeed(Resolver, {
    addresses: (hostname) =>
      Effect.tryPromise({
        try: () => lookup(hostname, { all: true, order: "ipv4first" }),
        catch: () => new NotReached({ reason: `the name ${hostname} cannot be resolved` })
      })
  })
}

export interface Post {
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
  readonly timeoutMs: number
}

/** The beginning of an answer is kept, at most so many bytes; no more is read. */
const keptBytes = 16_384

export interface Answer {
  readonly status: number
  /** As it stands there. */
  readonly retryAfter: string | undefined
  readonly body: string
}

/**
 * Requests to where strangers told us to send them. Nothing private is reached: the name is resolved here, every address of
 * it is looked at, and the connection goes to an address that was looked at, so that a second answer of the name server
 * changes nothing. Redirects are answers like others: not followed.
 */
export class PublicHttp extends Context.Service<
  PublicHttp,
  {
    /** What can be said of a URL without asking anybody; undefined when it is fine so far. */
    readonly objection: (url: string) => string | undefined
    readonly post: (post: Post) => Effect.Effect<Answer, NotReached>
  }
>()("merkato/infra/PublicHttp") {
  /** With `MERKATO_WEBHOOKS_ALLOW_PRIVATE=true`, for tests and work on one's own machine, everything is reached, by plain HTTP too. */
  static readonly layer = Layer.effect(
    PublicHttp,
    Effect.gen(function* () {
      const anywhere = yield* Config.Boolean("MERKATO_WEBHOOKS_ALLOW_PRIVATE").pipe(Config.withDefault(false))
      return yield* make(anywhere)
    })
  )

  static readonly layerWith = (anywhere: boolean) => Layer.effect(PublicHttp, make(anywhere))
}

/** Two slashes and a host: parsers of browsers make up what is missing, and would ask another host than the one that was meant. */
const isAbsolute = (text: string) => /^[a-z]+:\/\/[^/\\?#]/i.test(text)

/** A host as it stands in a URL, without the brackets of IPv6. */
const hostOf = ({ hostname }: URL) => hostname.replace(/^\[|\]$/g, "")

const make = Effect.fnUntraced(function* (anywhere: boolean) {
  const resolver = yield* Resolver

  const objection = (text: string): string | undefined => {
    const url = URL.canParse(text) ? new URL(text) : undefined
    if (url === undefined) return "not a URL"
    if (/^https?:/.test(url.protocol) && !isAbsolute(text)) return "expected // and a host"
    if (url.protocol !== "https:" && !(anywhere && url.protocol === "http:")) return "expected https://"
    if (url.username !== "" || url.password !== "") return "no user or password may be in it"
    if (!anywhere && isIP(hostOf(url)) !== 0 && !isPublic(hostOf(url))) return "the address is not a public one"
    return undefined
  }

  const addressOf = Effect.fnUntraced(function* (url: URL) {
    const host = hostOf(url)
    const family = isIP(host)
    const addresses = family === 0 ? yield* resolver.addresses(host) : [{ address: host, family }]
    const [first] = addresses
    if (first === undefined) return yield* new NotReached({ reason: `the name ${host} cannot be resolved` })
    if (!anywhere && !addresses.every(({ address }) => isPublic(address))) {
      return yield* new NotReached({ reason: `${host} is not at a public address` })
    }
    return first
  })

  const post = ({ url: text, headers, body, timeoutMs }: Post) =>
    Effect.gen(function* () {
      const reason = objection(text)
      if (reason !== undefined) return yield* new NotReached({ reason })
      const url = new URL(text)
      return yield* send(url, yield* addressOf(url), headers, body)
    }).pipe(
      Effect.timeoutOrElse({
        duration: timeoutMs,
        orElse: () => Effect.fail(new NotReached({ reason: `no answer within ${timeoutMs} ms` }))
      })
    )

  return PublicHttp.of({ objection, post })
})

/** The request, over a connection of its own to this very address; name and certificate stay those of the URL. */
const send = (url: URL, { address, family }: Address, headers: Readonly<Record<string, string>>, body: string) =>
  Effect.callback<Answer, NotReached>((resume) => {
    const open = url.protocol === "https:" ? secure : plain
    const request: ClientRequest = open(
      url,
      {
        method: "POST",
        agent: false,
        headers: { ...headers, "content-length": String(Buffer.byteLength(body)), connection: "close" },
        lookup: (_hostname, { all }, found) =>
          all === true ? found(null, [{ address, family }]) : found(null, address, family)
      },
      (response) => {
        const parts: Array<Buffer> = []
        let bytes = 0
        const answered = () => {
          const kept = Buffer.concat(parts).subarray(0, keptBytes).toString("utf8")
          // Postgres keeps no NUL in a text.
          const { statusCode = 0, headers } = response
          const body = kept.replaceAll("\u0000", "")
          resume(Effect.succeed({ status: statusCode, retryAfter: headers["retry-after"], body }))
        }
        response.on("data", (part: Buffer) => {
          parts.push(part)
          bytes += part.length
          if (bytes < keptBytes) return
          answered()
          request.destroy()
        })
        response.on("end", answered)
        response.on("error", (error) => failed(error))
      }
    )
    const failed = (error: Error) => {
      const code = "code" in error && typeof error.code === "string" ? error.code : error.message
      resume(Effect.fail(new NotReached({ reason: `no answer: ${code}`.slice(0, 300) })))
    }
    request.on("error", failed)
    request.end(body)
    return Effect.sync(() => {
      request.destroy()
    })
  })
