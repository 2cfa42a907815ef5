import { EventEmitter } from "node:events"
import type { Duplex } from "node:stream"
import { between } from "../kernel/Prng.ts"
import type { Breakable, SimProcess } from "../kernel/World.ts"
import type { Backend } from "./Backend.ts"
import * as Frames from "./Frames.ts"
import type { Gate } from "./Gate.ts"

/** What the driver sent in one go and waits for as a whole. */
export interface Batch {
  readonly messages: ReadonlyArray<Buffer>
  readonly sql: string
  /** The statement's text, and a digest of its parameters. */
  readonly label: string
  readonly kind: "connect" | "begin" | "commit" | "rollback" | "statement"
}

/** How long the network may hold a batch back, in virtual milliseconds: within a transaction, its locks are held as long. */
const latestMs = 1_000

const kindOf = (sql: string): Batch["kind"] => {
  const word = /^\s*(\w+)/.exec(sql)?.[1]?.toLowerCase()
  return word === "commit" || word === "rollback" || word === "begin" ? word : "statement"
}

const terminate = Frames.char("X")

/** A statement that the driver has sent to be parsed. */
export interface Statement {
  readonly sql: string
  /** Text and types of the parameters, byte by byte. */
  readonly key: string
}

/** One client's end of a connection: the driver writes its protocol here, and every batch becomes an operation of the world. */
export class WireSocket extends EventEmitter implements Breakable {
  /** The real session, as long as it has something of this connection's: a statement that runs, or an open transaction. */
  backend: Backend | undefined
  /** Statements that the driver has named, by name. */
  readonly statements = new Map<string, Statement>()
  /** Signed in. */
  connected = false
  /** A batch is on the server, and its answer has not come. */
  busy = false
  broken = false
  private greeted = false
  private pending: Buffer = Buffer.alloc(0)
  private messages: Array<Buffer> = []
  private queue: Array<Batch> = []
  private underWay = false
  private sql = ""
  private parameters = ""

  constructor(
    private readonly gate: Gate,
    readonly process: SimProcess,
    /** Names the connection in the history, and is its process id towards the driver. */
    readonly id: number
  ) {
    super()
    process.connections.add(this)
  }

  /** As the driver wants it. Of a stream it uses no more than what is here. */
  get asStream(): Duplex {
    return this as unknown as Duplex
  }

  /** The driver never writes again into what it has sent. */
  write(chunk: Uint8Array): boolean {
    if (this.broken || !this.process.alive) return true
    const sent = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
    const bytes = this.pending.length === 0 ? sent : Buffer.concat([this.pending, sent])
    let at = 0
    for (;;) {
      const head = this.greeted ? 1 : 0
      if (bytes.length < at + head + 4) break
      const end = at + head + bytes.readUInt32BE(at + head)
      if (bytes.length < end) break
      const message = bytes.subarray(at, end)
      at = end
      if (this.greeted) this.receive(message)
      else this.greet(message)
    }
    this.pending = bytes.subarray(at)
    return true
  }

  private greet(message: Buffer): void {
    if (message.readUInt32BE(4) === Frames.cancelRequestCode) {
      this.gate.cancelRequested(message.readUInt32BE(8), this)
      return
    }
    this.greeted = true
    this.submit({ messages: [message], sql: "", label: "connect", kind: "connect" })
  }

  private receive(message: Buffer): void {
    switch (message[0]) {
      case terminate:
        this.destroy()
        return
      case Frames.query:
        this.sql = message.toString("utf8", 5, message.length - 1)
        this.parameters = ""
        break
      case Frames.parse: {
        const name = message.indexOf(0, 5)
        this.sql = message.toString("utf8", name + 1, message.indexOf(0, name + 1))
        this.statements.set(message.toString("latin1", 5, name), {
          sql: this.sql,
          key: message.toString("latin1", name + 1)
        })
        break
      }
      case Frames.bind: {
        const portal = message.indexOf(0, 5)
        const name = message.indexOf(0, portal + 1)
        this.sql = this.statements.get(message.toString("latin1", portal + 1, name))?.sql ?? this.sql
        this.parameters = Frames.digest(message.subarray(name))
        break
      }
    }
    this.messages.push(message)
    if (message[0] !== Frames.sync && message[0] !== Frames.query) return
    const { messages, sql } = this
    this.messages = []
    this.submit({ messages, sql, label: `${sql} ${this.parameters}`, kind: kindOf(sql) })
  }

  /** One batch after the other: a connection is a pipe. */
  private submit(batch: Batch): void {
    this.queue.push(batch)
    if (!this.underWay) this.next()
  }

  private next(): void {
    const batch = this.queue.shift()
    this.underWay = batch !== undefined
    if (batch === undefined) return
    const { world } = this.gate
    const send = () => world.operation(this.process, `c${this.id} ${batch.label}`, () => this.gate.execute(this, batch))
    const fault = batch.kind === "commit" ? "commitDelayed" : "statementDelayed"
    if (!world.faults.happens(fault)) return send()
    world.timer(
      this.process,
      between(() => world.faults.amount(fault), 1, latestMs),
      send
    )
  }

  /** The answer arrives. */
  deliver(reply: Buffer): void {
    if (this.broken || !this.process.alive) return
    this.next()
    this.emit("data", reply)
  }

  breakOff(): void {
    if (this.broken) return
    this.broken = true
    this.queue = []
    this.process.connections.delete(this)
    this.gate.abandoned(this)
  }

  /** The connection is lost, and the client notices. */
  destroy(error?: Error): this {
    if (this.broken) return this
    this.breakOff()
    if (!this.process.alive) return this
    if (error !== undefined) this.emit("error", error)
    this.emit("close")
    return this
  }

  get writable(): boolean {
    return !this.broken
  }

  end(): this {
    return this.destroy()
  }

  pause(): this {
    return this
  }

  resume(): this {
    return this
  }
}
