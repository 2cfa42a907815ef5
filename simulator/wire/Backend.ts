import { PgAuth, PgProtocol } from "@effect/sql-pg"
import { Result } from "effect"
import { randomBytes } from "node:crypto"
import type { Socket, SocketHandler } from "bun"
import { real } from "../kernel/RealTime.ts"
import * as Begin from "./Begin.ts"
import * as Frames from "./Frames.ts"
import { Prepared } from "./Prepared.ts"

/** Where the real server is. */
export interface Target {
  readonly host: string
  readonly port: number
  /** Of the server's Unix socket, when it has one. */
  readonly path: string | undefined
  readonly database: string
  readonly user: string
  readonly password: string
}

/** Settings of every session: nothing in the server may run on real time. */
const settings = {
  client_encoding: "UTF8",
  timezone: "UTC",
  jit: "off",
  statement_timeout: "0",
  lock_timeout: "0",
  idle_in_transaction_session_timeout: "0",
  application_name: "merkato-simulator"
} as const

/** A real session on the server, used by one simulated connection after the other. */
export class Backend {
  pid = 0
  /** What the server said about itself when the session began: each simulated connection is told the same. */
  greeting: ReadonlyArray<Buffer> = []
  readonly prepared = new Prepared()
  private buffered: Buffer = Buffer.alloc(0)
  private answers: Array<Buffer> = []
  private batchesLeft = 0
  /** A transaction is to be opened that the server has not heard of yet. */
  private toBegin = false
  /** The answer to BEGIN is still to come, ahead of the reply; nobody waits for it. */
  private beginning = false
  private waiting: { readonly resolve: (reply: Buffer) => void; readonly reject: (error: Error) => void } | undefined
  private ended: Error | undefined
  /** Handles messages before the session is ready. */
  private signingIn: ((type: number, message: Buffer) => void) | undefined

  private socket: Socket<undefined> | undefined
  /** What the kernel has not taken yet. */
  private unsent: Uint8Array = Buffer.alloc(0)

  static async open(target: Target): Promise<Backend> {
    const backend = new Backend()
    const end = () => {
      backend.ended = new Error("The database server hung up on the gate")
      backend.waiting?.reject(backend.ended)
    }
    const socket: SocketHandler<undefined> = {
      data: (_socket, chunk) => backend.onData(chunk),
      drain: () => backend.flush(),
      close: end,
      error: end
    }
    const { path, host: hostname, port } = target
    backend.socket =
      path === undefined ? await real.connect({ hostname, port, socket }) : await real.connect({ unix: path, socket })
    if (target.path === undefined) backend.socket.setNoDelay(true)
    backend.signIn(target)
    const greeting = await backend.ask(Frames.startup({ user: target.user, database: target.database, ...settings }), 1)
    const refused = Frames.errorOf(greeting)
    if (refused !== undefined) throw new Error(`The gate cannot sign in: ${refused.message}`)
    backend.signingIn = undefined
    backend.greeting = [...Frames.messages(greeting)].flatMap(([type, message]) =>
      type === Frames.char("S") ? [Buffer.from(message)] : []
    )
    return backend
  }

  /** SCRAM-SHA-256, the only way that the embedded server knows. */
  private signIn(target: Target): void {
    const begun = Result.getOrThrow(
      PgAuth.scramInit({ password: target.password, nonce: randomBytes(18).toString("base64") })
    )
    this.signingIn = (type, message) => {
      if (type !== Frames.char("R")) return
      switch (message.readInt32BE(5)) {
        case 10:
          this.send(
            PgProtocol.encodeSASLInitialResponse({ mechanism: PgAuth.SCRAM_SHA_256, initialResponse: begun.response })
          )
          return
        case 11: {
          const next = Result.getOrThrow(PgAuth.scramContinue(begun.state, message.subarray(9)))
          this.send(PgProtocol.encodeSASLResponse({ data: next.response }))
          return
        }
      }
    }
  }

  /** The chunk is only lent. */
  private onData(chunk: Uint8Array): void {
    this.buffered = this.buffered.length === 0 ? Buffer.from(chunk) : Buffer.concat([this.buffered, chunk])
    while (this.buffered.length >= 5) {
      const length = 1 + this.buffered.readUInt32BE(1)
      if (this.buffered.length < length) break
      const message = this.buffered.subarray(0, length)
      this.buffered = this.buffered.subarray(length)
      const type = message[0] ?? 0
      if (type === Frames.char("K")) {
        this.pid = message.readUInt32BE(5)
        continue
      }
      if (this.beginning) {
        this.beginning = type !== Frames.readyForQuery
        continue
      }
      this.signingIn?.(type, message)
      this.answers.push(message)
      const over = type === Frames.readyForQuery && --this.batchesLeft === 0
      const refused = this.signingIn !== undefined && type === Frames.char("E")
      if (over || refused) this.waiting?.resolve(Buffer.concat(this.answers))
    }
  }

  /** Opens a transaction together with what is asked next: BEGIN alone locks nothing and sees nothing, so it may wait. */
  begin(): void {
    this.toBegin = true
  }

  /** Sends bytes that hold so many batches; the whole reply comes at once, so how it was cut never shows. */
  ask(bytes: Uint8Array, batches = 1): Promise<Buffer> {
    if (this.ended !== undefined) return Promise.reject(this.ended)
    this.answers = []
    this.batchesLeft = batches
    this.beginning = this.toBegin
    this.toBegin = false
    return new Promise<Buffer>((resolve, reject) => {
      this.waiting = { resolve, reject }
      this.send(this.beginning ? Buffer.concat([Begin.bytes, bytes]) : bytes)
    })
  }

  private send(bytes: Uint8Array): void {
    this.unsent = this.unsent.length === 0 ? bytes : Buffer.concat([this.unsent, bytes])
    this.flush()
  }

  private flush(): void {
    if (this.unsent.length === 0 || this.socket === undefined) return
    this.unsent = this.unsent.subarray(Math.max(this.socket.write(this.unsent), 0))
  }

  close(): void {
    this.socket?.terminate()
  }
}
