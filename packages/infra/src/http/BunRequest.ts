import { Effect, Inspectable, Option, type Schema, Stream } from "effect"
import {
  Cookies,
  Headers,
  HttpIncomingMessage,
  HttpServerError,
  HttpServerRequest,
  Multipart,
  UrlParams
} from "effect/http"
import type { Socket } from "effect/socket"
import { BodyTooLarge, type Exchange, pathOf } from "./Exchange.ts"

/** Effect's view of the request of an exchange: what of it is asked for is read then, and once. */
export class BunRequest extends Inspectable.Class implements HttpServerRequest.HttpServerRequest {
  readonly exchange: Exchange
  readonly protocol: "http" | "https" | undefined
  private path: string | undefined
  private headersRead: Headers.Headers | undefined
  private remote: Option.Option<string> | undefined
  private peer: Option.Option<string> | undefined
  private cookiesRead: Readonly<Record<string, string>> | undefined
  private persisted: HttpServerRequest.HttpServerRequest["multipart"] | undefined

  constructor(
    exchange: Exchange,
    path?: string,
    headers?: Headers.Headers,
    remote?: Option.Option<string>,
    peer?: Option.Option<string>,
    protocol?: "http" | "https"
  ) {
    super()
    this.exchange = exchange
    this.path = path
    this.headersRead = headers
    this.remote = remote
    this.peer = peer
    this.protocol = protocol
  }
  get [HttpServerRequest.TypeId](): typeof HttpServerRequest.TypeId {
    return HttpServerRequest.TypeId
  }
  get [HttpIncomingMessage.TypeId](): typeof HttpIncomingMessage.TypeId {
    return HttpIncomingMessage.TypeId
  }
  get source(): Request {
    return this.exchange.request
  }
  get method(): string {
    return this.exchange.request.method
  }
  get url(): string {
    return (this.path ??= pathOf(this.exchange.request.url))
  }
  get originalUrl(): string {
    return this.exchange.request.url
  }
  get headers(): Headers.Headers {
    return (this.headersRead ??= readHeaders(this.exchange.request.headers))
  }
  /** Known while the request is in flight: ask before answering. */
  get remoteAddress(): Option.Option<string> {
    return (this.remote ??= Option.fromNullishOr(this.exchange.server.requestIP(this.exchange.request)?.address))
  }
  get peerAddress(): Option.Option<string> {
    return this.peer ?? this.remoteAddress
  }
  get cookies(): Readonly<Record<string, string>> {
    return (this.cookiesRead ??= Cookies.parseHeader(this.headers["cookie"] ?? ""))
  }
  modify(options: Parameters<HttpServerRequest.HttpServerRequest["modify"]>[0]): BunRequest {
    return new BunRequest(
      this.exchange,
      options.url ?? this.path,
      options.headers ?? this.headersRead,
      options.remoteAddress ?? this.remote,
      options.peerAddress ?? this.peer,
      options.protocol ?? this.protocol
    )
  }
  toJSON(): unknown {
    return HttpIncomingMessage.inspect(this, {
      _id: "HttpServerRequest",
      method: this.method,
      url: UrlParams.redactUrl(this.originalUrl)
    })
  }

  private parseError(cause: unknown, description?: string): HttpServerError.HttpServerError {
    return new HttpServerError.HttpServerError({
      reason: new HttpServerError.RequestParseError({
        request: this,
        reason: cause instanceof BodyTooLarge ? "BodyTooLarge" : "Parse",
        cause,
        ...(description === undefined ? undefined : { description })
      })
    })
  }
  private get bytes(): Effect.Effect<Uint8Array<ArrayBuffer>, HttpServerError.HttpServerError> {
    return Effect.withFiber((fiber) => {
      const { maxBodyBytes } = this.exchange.limits
      const lower = fiber.getRef(HttpIncomingMessage.MaxBodySize)
      const maxBytes = lower === undefined ? maxBodyBytes : Math.min(maxBodyBytes, Number(lower))
      return Effect.tryPromise({
        try: () => this.exchange.readBody(maxBytes),
        catch: (cause) => this.parseError(cause)
      })
    })
  }
  get arrayBuffer(): Effect.Effect<ArrayBuffer, HttpServerError.HttpServerError> {
    return Effect.map(this.bytes, (bytes) =>
      bytes.byteLength === bytes.buffer.byteLength ? bytes.buffer : bytes.slice().buffer
    )
  }
  get text(): Effect.Effect<string, HttpServerError.HttpServerError> {
    return Effect.flatMap(this.bytes, (bytes) =>
      Effect.try({ try: () => utf8.decode(bytes), catch: (cause) => this.parseError(cause) })
    )
  }
  get json(): Effect.Effect<Schema.Json, HttpServerError.HttpServerError> {
    return Effect.flatMap(this.text, (text) =>
      Effect.try({
        try: (): Schema.Json => (text === "" ? null : JSON.parse(text)),
        catch: (cause) => this.parseError(cause)
      })
    )
  }
  get urlParamsBody(): Effect.Effect<UrlParams.UrlParams, HttpServerError.HttpServerError> {
    return Effect.flatMap(this.text, (text) =>
      Effect.try({
        // A leading "?" is form data; URLSearchParams would drop it as the mark of a query.
        try: () => UrlParams.fromInput(new URLSearchParams(text.replace(/^\?/, "%3F"))),
        catch: (cause) => this.parseError(cause)
      })
    )
  }
  get stream(): Stream.Stream<Uint8Array, HttpServerError.HttpServerError> {
    const { exchange } = this
    const { body } = exchange.request
    if (exchange.body !== undefined) return Stream.fromEffect(this.bytes)
    if (body === null) return Stream.empty
    const chunks = Stream.fromReadableStream<Uint8Array, HttpServerError.HttpServerError>({
      evaluate: () => body,
      onError: (cause) => this.parseError(cause)
    })
    if (exchange.request.headers.has("content-length")) return chunks
    const { maxBodyBytes } = exchange.limits
    let size = 0
    return chunks.pipe(
      Stream.mapEffect((chunk) => {
        size += chunk.byteLength
        return size > maxBodyBytes
          ? Effect.fail(this.parseError(exchange.tooLarge(size, maxBodyBytes)))
          : Effect.succeed(chunk)
      })
    )
  }
  get multipart(): HttpServerRequest.HttpServerRequest["multipart"] {
    return (this.persisted ??= Effect.runSync(Effect.cached(Multipart.toPersisted(this.multipartStream))))
  }
  get multipartStream(): Stream.Stream<Multipart.Part, Multipart.MultipartError> {
    return Stream.pipeThroughChannel(
      Stream.mapError(this.stream, (cause) => Multipart.MultipartError.fromReason("InternalError", cause)),
      Multipart.makeChannel(this.headers)
    )
  }
  get upgrade(): Effect.Effect<Socket.Socket, HttpServerError.HttpServerError> {
    return this.upgradeWith({})
  }
  upgradeWith(options: {
    readonly headers?: Headers.Input | undefined
  }): Effect.Effect<Socket.Socket, HttpServerError.HttpServerError> {
    return Effect.mapError(this.exchange.upgrade(Headers.fromInput(options.headers)), (cause) =>
      this.parseError(cause, "The connection cannot become a WebSocket")
    )
  }
}

/** Twice as fast as iterating; only a repeated set-cookie, which no request carries, would not be a string. */
const readHeaders = (headers: globalThis.Headers): Headers.Headers => {
  if (headers.has("set-cookie")) return Headers.fromInput(headers)
  // Bun's Headers have a toJSON that its types leave out.
  return Headers.fromRecordUnsafe((headers as globalThis.Headers & { toJSON(): Record<string, string> }).toJSON())
}

/** What is not UTF-8 is refused: with replacement characters in it, it would be another text than the one that was sent. */
const utf8 = new TextDecoder("utf-8", { fatal: true })
