import { Cause, Data, Effect, Exit, Stream } from "effect"
import { type Headers, HttpEffect, HttpServerResponse } from "effect/http"
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

/** Path and query of an absolute URL; HTTP/1.0 requests without a Host carry nothing else. */
export const pathOf = (url: string): string => {
  if (url.startsWith("/")) return url
  const start = url.indexOf("/", url.indexOf("//") + 2)
  return start === -1 ? "/" : url.slice(start)
}
