import { Cause, Data, Effect, Exit, Inspectable, Option, type Schema, Stream } from "effect"
import {
  Cookies,
  Headers,
  HttpEffect,
  HttpIncomingMessage,
  HttpServerError,
  HttpServerRequest,
  HttpServerResponse,
  Multipart,
  UrlParams
} from "effect/http"
import type { Socket } from "effect/socket"
import type { Lifecycle } from "./ServerLifecycle.ts"
import type { Limits } from "./ServerOptions.ts"
import { internal, payloadTooLarge, problem } from "./ServerProblems.ts"
import { toWeb } from "./WebResponse.ts"
import { Connection } from "./WebSocketConnection.ts"

export type Server = Bun.Server<Connection>
export type Answer = Response | undefined
export type Handler = (request: Request, server: Server) => Answer | Promise<Answer>

/** One request on its way through the server, and the answer to it. */
export class Exchange {
  readonly request: Request
  readonly server: Server
  readonly lifecycle: Lifecycle
  readonly limits: Limits
  isAnswered = false
  answer: Answer = undefined
  onAnswer: ((answer: Answer) => void) | undefined = undefined
  onAbort: (() => void) | undefined = undefined
  connection: Connection | undefined = undefined
  body: Promise<Uint8Array<ArrayBuffer>> | undefined = undefined
  bodyTooLarge = false

  constructor(request: Request, server: Server, lifecycle: Lifecycle, limits: Limits) {
    this.request = request
    this.server = server
    this.lifecycle = lifecycle
    this.limits = limits
  }

  interruptOnDisconnect() {
    if (this.isAnswered) return
    const { signal } = this.request
    if (signal.aborted) this.onAbort?.()
    else signal.addEventListener("abort", this, { once: true })
  }
  /** The listener of the abort signal; a WebSocket has its own end. */
  handleEvent() {
    if (this.connection === undefined) this.onAbort?.()
  }

  resolve(answer: Answer) {
    this.isAnswered = true
    this.answer = answer
    this.onAnswer?.(answer)
  }

  send(response: HttpServerResponse.HttpServerResponse): Effect.Effect<unknown> {
    if (this.connection !== undefined) {
      this.connection.close(response.status >= 500 ? (response.status === 503 ? 1001 : 1011) : 1000)
      return upgraded
    }
    if (this.isAnswered) return Effect.void
    if (this.bodyTooLarge && (response.status !== 413 || response.body._tag === "Empty")) {
      this.resolve(problem(payloadTooLarge(this.limits.maxBodyBytes), this.limits.problemHeaders?.(this.request)))
      return Effect.void
    }
    // Bun refuses statuses and headers that HTTP does not know; the caller still gets an answer.
    try {
      const answer = toWeb(response, this.lifecycle.refusing)
      if (response.body._tag === "Stream" && !HttpServerResponse.omitsBody(response, this.request.method === "HEAD")) {
        return this.sendStream(response, answer)
      }
      this.resolve(answer)
      return Effect.void
    } catch (defect) {
      this.resolve(problem(internal))
      return Effect.die(defect)
    }
  }

  /** The stream runs on, with the request's services, after the handler is done. */
  private sendStream(response: HttpServerResponse.HttpServerResponse, head: Response): Effect.Effect<void> {
    return Effect.withFiber((fiber) => {
      const { body } = HttpEffect.scopeTransferToStream(response)
      if (body._tag !== "Stream") return Effect.die(body)
      this.lifecycle.enter()
      const stream = Stream.onExit(body.stream, (exit) => {
        this.lifecycle.leave()
        return Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)
          ? Effect.logError("A streamed HTTP response broke off", exit.cause)
          : Effect.void
      })
      this.resolve(
        new Response(Stream.toReadableStreamWith(stream, fiber.context, { signal: this.request.signal }), head)
      )
      return Effect.void
    })
  }

  /** The whole body, read once for all who ask. */
  readBody(maxBytes: number): Promise<Uint8Array<ArrayBuffer>> {
    return (this.body ??= this.readBodyUpTo(maxBytes))
  }

  private async readBodyUpTo(maxBytes: number): Promise<Uint8Array<ArrayBuffer>> {
    const length = this.request.headers.get("content-length")
    if (length !== null) {
      if (Number(length) > maxBytes) throw new BodyTooLarge(maxBytes)
      return new Uint8Array(await this.request.arrayBuffer())
    }
    if (this.request.body === null) return new Uint8Array(0)
    const reader = this.request.body.getReader()
    const chunks: Array<Uint8Array> = []
    let size = 0
    for (;;) {
      const { done, value } = await reader.read()
      if (done) break
      size += value.byteLength
      if (size > maxBytes) {
        // Not awaited: Bun ends the connection with the answer.
        reader.cancel().catch(() => {})
        throw this.tooLarge(size, maxBytes)
      }
      chunks.push(value)
    }
    return new Uint8Array(await new Blob(chunks).arrayBuffer())
  }

  tooLarge(size: number, maxBytes: number) {
    if (size > this.limits.maxBodyBytes) this.bodyTooLarge = true
    return new BodyTooLarge(maxBytes)
  }

  upgrade(headers: Headers.Headers): Effect.Effect<Socket.Socket, NotUpgraded> {
    return Effect.suspend(() => {
      if (this.isAnswered) return Effect.fail(new NotUpgraded({ reason: "the request is already answered" }))
      const connection = new Connection(this)
      if (!this.server.upgrade(this.request, { headers: { ...headers }, data: connection })) {
        return Effect.fail(new NotUpgraded({ reason: "not a WebSocket handshake" }))
      }
      this.connection = connection
      this.resolve(undefined)
      return Effect.succeed(connection.socket)
    })
  }
}

const upgraded = Effect.succeed(HttpServerResponse.empty({ status: 101 }))

/** The request cannot become a WebSocket. */
class NotUpgraded extends Data.TaggedError("NotUpgraded")<{ readonly reason: string }> {}

export class BodyTooLarge extends Error {
  constructor(maxBytes: number) {
    super(`The request's body is larger than ${maxBytes} bytes`)
  }
}

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

/** Path and query of an absolute URL; HTTP/1.0 requests without a Host carry nothing else. */
export const pathOf = (url: string): string => {
  if (url.startsWith("/")) return url
  const start = url.indexOf("/", url.indexOf("//") + 2)
  return start === -1 ? "/" : url.slice(start)
}
