import { EventEmitter } from "node:events"
import type { Duplex } from "node:stream"
import { between } from "../kernel/Prng.ts"
import type { Breakable, SimProcess } from "../kernel/World.ts"
import type { Backend } from "./Backend.ts"
import * as Frames from "./Frames.ts"
import type { Gate } from "./Gate.ts"

/** What the driver sent in one go and waits for as a whole. */
export interface Batch {
  readonly bytes: Buffer
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

/** One client's end of a connection: the driver writes its protocol here, and every batch becomes an operation of the world. */
export class WireSocket extends EventEmitter implements Breakable {
  backend: Backend | undefined
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
  private readonly statements = new Map<string, string>()

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

  write(chunk: Uint8Array): boolean {
    if (this.broken || !this.process.alive) return true
    this.pending = Buffer.concat([this.pending, chunk])
    for (;;) {
      const head = this.greeted ? 1 : 0
      if (this.pending.length < head + 4) return true
      const length = head + this.pending.readUInt32BE(head)
      if (this.pending.length < length) return true
      const message = Buffer.from(this.pending.subarray(0, length))
      this.pending = this.pending.subarray(length)
      if (this.greeted) this.receive(message)
      else this.greet(message)
    }
  }

  private greet(message: Buffer): void {
    if (message.readUInt32BE(4) === Frames.cancelRequestCode) {
      this.gate.cancelRequested(message.readUInt32BE(8), this)
      return
    }
    this.greeted = true
    this.submit({ bytes: message, label: "connect", kind: "connect" })
  }

  private receive(message: Buffer): void {
    switch (String.fromCharCode(message[0] ?? 0)) {
      case "X":
        this.destroy()
        return
      case "Q":
        this.sql = message.toString("utf8", 5, message.length - 1)
        this.parameters = ""
        break
      case "P": {
        const name = message.indexOf(0, 5)
        this.sql = message.toString("utf8", name + 1, message.indexOf(0, name + 1))
        this.statements.set(message.toString("utf8", 5, name), this.sql)
        break
      }
      case "B": {
        const portal = message.indexOf(0, 5)
        const name = message.indexOf(0, portal + 1)
        this.sql = this.statements.get(message.toString("utf8", portal + 1, name)) ?? this.sql
        this.parameters = Frames.digest(message.subarray(name))
        break
      }
    }
    this.messages.push(message)
    const last = message[0]
    if (last !== Frames.char("S") && last !== Frames.char("Q")) return
    const bytes = Buffer.concat(this.messages)
    this.messages = []
    this.submit({ bytes, label: `${this.sql} ${this.parameters}`, kind: kindOf(this.sql) })
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
