import { Cause, Effect, Exit } from "effect"
import { Socket } from "effect/socket"
import type { Exchange } from "./Exchange.ts"

/** Beyond this many unread bytes (characters, of text) the client is made to wait. */
const inboxLimit = 64 * 1024

/** A WebSocket whose client is slowed down when we do not read, as we are when it does not. */
export class Connection {
  readonly socket: Socket.Socket
  private readonly exchange: Exchange
  private ws: Bun.ServerWebSocket<Connection> | undefined
  private inbox: Array<string | Uint8Array> = []
  private inboxSize = 0
  private reader: Resume<NonEmpty<string | Uint8Array>> | undefined
  /** Nothing can be sent yet, or Bun has queued what the client does not read. */
  private congested = true
  private readonly writers = new Set<Resume<void>>()
  private closed: Socket.SocketError | undefined

  constructor(exchange: Exchange) {
    this.exchange = exchange
    this.socket = Socket.make({
      reader: Effect.suspend(() =>
        this.closed === undefined
          ? Effect.acquireRelease(
              Effect.succeed({ pull: this.pull, upgrade: Socket.SocketUpgradeError.unsupported }),
              (_, exit) => Effect.sync(() => this.release(exit))
            )
          : Effect.fail(this.closed)
      ),
      writer: Effect.succeed({ write: (chunk) => this.write(chunk), writeAll: (chunks) => this.writeAll(chunks) })
    })
  }

  onOpen(ws: Bun.ServerWebSocket<Connection>) {
    ws.binaryType = "uint8array"
    this.ws = ws
    this.onDrain()
    this.exchange.lifecycle.connections.add(this)
    if (this.exchange.lifecycle.refusing) this.close(1001, "The server is stopping")
  }
  onMessage(message: string | Uint8Array) {
    this.inbox.push(message)
    this.inboxSize += message.length
    if (this.reader !== undefined) {
      const resume = this.reader
      this.reader = undefined
      resume(Effect.succeed(this.takeInbox()))
    } else if (this.inboxSize >= inboxLimit) {
      this.ws?.pause()
    }
  }
  onDrain() {
    this.congested = false
    this.resumeWriters(Effect.void)
  }
  onClose(code: number, reason?: string) {
    this.exchange.lifecycle.connections.delete(this)
    this.fail(code, reason)
    // Without a Close frame, the client has gone away.
    if (code === 1006) this.exchange.onAbort?.()
  }
  close(code: number, reason?: string) {
    this.ws?.close(code, reason)
  }

  private release(exit: Exit.Exit<unknown, unknown>) {
    this.fail(1006)
    this.close(Exit.isSuccess(exit) ? 1000 : Cause.hasInterruptsOnly(exit.cause) ? 1001 : 1011)
  }
  private fail(code: number, reason?: string) {
    if (this.closed !== undefined) return
    this.closed = new Socket.SocketError({
      reason: new Socket.SocketCloseError({ code, closeReason: reason === "" ? undefined : reason })
    })
    const failed = Effect.fail(this.closed)
    this.reader?.(failed)
    this.reader = undefined
    this.resumeWriters(failed)
  }
  private resumeWriters(effect: Effect.Effect<void, Socket.SocketError>) {
    for (const resume of this.writers) resume(effect)
    this.writers.clear()
  }
  private takeInbox(): NonEmpty<string | Uint8Array> {
    const [first, ...rest] = this.inbox
    this.inbox = []
    this.inboxSize = 0
    if (this.ws?.isPaused) this.ws.resume()
    return first === undefined ? [""] : [first, ...rest]
  }
  private readonly pull = Effect.callback<NonEmpty<string | Uint8Array>, Socket.SocketError>((resume) => {
    if (this.inbox.length > 0) return resume(Effect.succeed(this.takeInbox()))
    if (this.closed !== undefined) return resume(Effect.fail(this.closed))
    this.reader = resume
    return Effect.sync(() => {
      if (this.reader === resume) this.reader = undefined
    })
  })

  private readonly drained = Effect.callback<void, Socket.SocketError>((resume) => {
    if (this.closed !== undefined) return resume(Effect.fail(this.closed))
    if (!this.congested) return resume(Effect.void)
    this.writers.add(resume)
    return Effect.sync(() => {
      this.writers.delete(resume)
    })
  })
  private write(chunk: string | Uint8Array | Socket.CloseEvent): Effect.Effect<void, Socket.SocketError> {
    return Effect.suspend(() => {
      if (Socket.isCloseEvent(chunk)) {
        this.close(chunk.code, chunk.reason)
        return Effect.void
      }
      return this.writeAll([chunk])
    })
  }
  private writeAll(chunks: ReadonlyArray<string | Uint8Array>): Effect.Effect<void, Socket.SocketError> {
    return Effect.suspend(() => {
      if (this.closed !== undefined) return Effect.fail(this.closed)
      if (this.ws === undefined || this.congested) return Effect.andThen(this.drained, this.writeAll(chunks))
      const { ws } = this
      const isSent = ws.cork(() => chunks.every((chunk) => this.send(ws, chunk)))
      if (!isSent) {
        const cause = new Error("The client does not read, or has gone away: a message was dropped")
        return Effect.fail(new Socket.SocketError({ reason: new Socket.SocketWriteError({ cause }) }))
      }
      return this.congested ? this.drained : Effect.void
    })
  }
  /** Bun says -1 when it had to queue, and 0 when it dropped the message. */
  private send(ws: Bun.ServerWebSocket<Connection>, chunk: string | Uint8Array): boolean {
    const status = typeof chunk === "string" ? ws.sendText(chunk) : ws.sendBinary(chunk)
    if (status === -1) this.congested = true
    return status !== 0 || chunk.length === 0
  }
}

type NonEmpty<A> = readonly [A, ...Array<A>]
type Resume<A> = (effect: Effect.Effect<A, Socket.SocketError>) => void
