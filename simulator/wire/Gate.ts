import type { Duplex } from "node:stream"
import { real, turn, wait } from "../kernel/RealTime.ts"
import type { SimProcess, World } from "../kernel/World.ts"
import * as Begin from "./Begin.ts"
import * as Frames from "./Frames.ts"
import type { Translated } from "./Prepared.ts"
import { freeze, mayWait, type Server, thaw } from "./Server.ts"
import { type Batch, WireSocket } from "./WireSocket.ts"

/** A statement that waits for a lock; its backend is stopped until the lock is granted and the seed lets it go on. */
interface Waiter {
  readonly socket: WireSocket
  readonly batch: Batch
  reply: Buffer | undefined
  failure: unknown
  wake: (() => void) | undefined
}

/** Real milliseconds after which a statement without an answer is suspected to wait for a lock; most answer sooner. */
const suspectAfterMs = 4

/** Real milliseconds after which what the gate itself asks is suspected to wait for a backend that is stopped. */
const rescueAfterMs = 2_000

/** Virtual milliseconds that a statement may wait for a lock: the statement_timeout of the contexts' sessions. */
const statementTimeoutMs = 10_000

/** Ends a statement as statement_timeout does, by real SQL, so that the session's transaction is in the state it would be. */
const timeOut: Translated = {
  bytes: Frames.simpleQuery(
    `do $$ begin raise exception using errcode = '57014', message = 'canceling statement due to statement timeout'; end $$`
  ),
  known: Buffer.alloc(0),
  parsed: undefined,
  unasked: false
}

export interface GateCounts {
  statements: number
  lockWaits: number
  deadlocks: number
  cancels: number
  /** Statements that failed, by SQLSTATE. */
  readonly errors: Map<string, number>
  /** Of no consequence for the history: how often the machine was asked about locks, and helped out of a standstill. */
  probes: number
  rescues: number
}

/**
 * Between the drivers and the real server: at most one backend executes at a time. A statement either answers, or is found
 * to wait for a lock and is stopped (SIGSTOP) until it could go on, which is then one more choice of the seed.
 */
export class Gate {
  readonly counts: GateCounts = {
    statements: 0,
    lockWaits: 0,
    deadlocks: 0,
    cancels: 0,
    errors: new Map(),
    probes: 0,
    rescues: 0
  }
  private readonly waiters = new Map<number, Waiter>()
  private sockets = 0
  /** A transaction may have ended, and with it a wait. */
  private released = false

  constructor(
    readonly world: World,
    private readonly server: Server
  ) {
    world.afterOperation = () => this.grant()
  }

  /** A connection of a process, as the driver wants it. */
  connect(process: SimProcess): Duplex {
    return new WireSocket(this, process, ++this.sockets).asStream
  }

  get waiting(): number {
    return this.waiters.size
  }

  async execute(socket: WireSocket, batch: Batch): Promise<void> {
    if (socket.broken) return
    if (batch.kind === "connect") return this.open(socket)
    const { faults } = this.world
    const ending = batch.kind === "commit"
    if (faults.happens(ending ? "dropBeforeCommit" : "dropBeforeStatement")) {
      this.world.log("  connection lost before")
      socket.destroy(new Error("ECONNRESET"))
      return
    }
    const canceled = batch.kind === "statement" && faults.happens("cancelStatement")
    if (canceled) this.counts.cancels++
    this.counts.statements++
    socket.busy = true
    const begun = socket.backend === undefined ? Begin.answerTo(batch.sql, batch.messages) : undefined
    const backend = (socket.backend ??= await this.server.take())
    const { prepared } = backend
    if (begun !== undefined) {
      backend.begin()
      this.ended(socket, batch, begun, false)
      return this.answer(socket, batch, begun)
    }
    const asked = canceled ? timeOut : prepared.translate((name) => socket.statements.get(name)?.key, batch.messages)
    const waiter: Waiter = { socket, batch, reply: undefined, failure: undefined, wake: undefined }
    backend.ask(asked.bytes).then(
      (reply) => {
        waiter.reply = prepared.answered(asked, reply)
        waiter.wake?.()
      },
      (failure: unknown) => {
        waiter.failure = failure
        waiter.wake?.()
      }
    )
    await this.settle(waiter, backend.pid, false)
  }

  private open(socket: WireSocket): void {
    socket.connected = true
    const ok = Buffer.from([Frames.char("R"), 0, 0, 0, 8, 0, 0, 0, 0])
    const ready = Buffer.from([Frames.char("Z"), 0, 0, 0, 5, Frames.char("I")])
    socket.deliver(Buffer.concat([ok, ...this.server.greeting, Frames.backendKey(socket.id), ready]))
  }

  /**
   * Until the statement has ended, or waits for a lock. `granted`: it waited before. `canceled`: it is about to end, and
   * still stands among those who wait until its backend comes to it: however slow the machine is, it is not stopped again.
   */
  private async settle(waiter: Waiter, pid: number, granted: boolean, canceled = false): Promise<void> {
    const { socket } = waiter
    let doomed = false
    for (let calm = 0; waiter.reply === undefined; ) {
      if (waiter.failure !== undefined) throw waiter.failure
      await new Promise<void>((resolve) => {
        const timer = real.setTimeout(resolve, suspectAfterMs)
        waiter.wake = () => {
          real.clearTimeout(timer)
          resolve()
        }
      })
      if (waiter.reply !== undefined || waiter.failure !== undefined) continue
      // On a busy machine the time was over because this process had no CPU, or the backend had none: no need to ask.
      await turn()
      if (waiter.reply !== undefined || waiter.failure !== undefined) continue
      if (!mayWait(pid)) {
        calm = 0
        continue
      }
      const blockers = await this.locks([...this.waiters.keys(), pid])
      const blocked = !canceled && (blockers.get(pid)?.length ?? 0) > 0
      if (!blocked) {
        calm = 0
        continue
      }
      if (closesCircle(blockers, pid)) {
        // Left running: its deadlock_timeout makes it the victim.
        if (!doomed) this.counts.deadlocks++
        doomed = true
        calm = 0
        continue
      }
      if (doomed && ++calm < 3) continue
      return this.stop(waiter, pid)
    }
    this.ended(socket, waiter.batch, waiter.reply, granted)
    return socket.broken ? await this.giveBack(socket) : this.answer(socket, waiter.batch, waiter.reply)
  }

  private stop(waiter: Waiter, pid: number): void {
    freeze(pid)
    this.counts.lockWaits++
    this.waiters.set(pid, waiter)
    this.world.log(`  c${waiter.socket.id} waits for a lock`)
    this.world.timer(this.world.outside, statementTimeoutMs, () => {
      if (this.waiters.get(pid) === waiter) this.cancelLater(pid, waiter)
    })
  }

  private ended(socket: WireSocket, batch: Batch, reply: Buffer, granted: boolean): void {
    socket.busy = false
    if (!Frames.inTransaction(reply)) this.release(socket)
    if (granted || batch.kind === "rollback" || !Frames.inTransaction(reply)) this.released = true
    const error = Frames.errorOf(reply)
    if (error === undefined) {
      this.world.log(`  reply ${Frames.digestOfReply(reply)}`)
      return
    }
    // A statement that failed keeps the locks of its transaction, but not its place in a queue.
    this.released = true
    this.counts.errors.set(error.code, (this.counts.errors.get(error.code) ?? 0) + 1)
    this.world.log(`  error ${error.code}`)
    this.world.history.remark(`    ${error.message}`)
  }

  private answer(socket: WireSocket, batch: Batch, reply: Buffer): void {
    const { faults } = this.world
    if (batch.sql.includes("orders.sagas") && faults.happens("ownerSleeps")) {
      this.world.pauseLong(socket.process, () => faults.amount("ownerSleeps"))
    }
    const fault = batch.kind === "commit" ? "dropAfterCommit" : "dropAfterStatement"
    if (faults.happens(fault)) {
      this.world.log("  connection lost after")
      socket.destroy(new Error("ECONNRESET"))
    } else socket.deliver(reply)
  }

  /** The client's end is gone: the server rolls back, once its statement has ended. */
  abandoned(socket: WireSocket): void {
    if (!socket.connected || socket.busy) return
    this.world.operation(this.world.outside, `c${socket.id} is closed by the server`, () => this.giveBack(socket))
  }

  private async giveBack(socket: WireSocket): Promise<void> {
    const { backend } = socket
    socket.connected = false
    socket.backend = undefined
    this.released = true
    if (backend !== undefined) await this.rescued(this.server.rollBack(backend))
  }

  /** Nothing of a connection is left in the session after a transaction, so others may have it. */
  private release(socket: WireSocket): void {
    const { backend } = socket
    socket.backend = undefined
    if (backend !== undefined) this.server.give(backend)
  }

  /** A CancelRequest meets its statement only when that waits for a lock; else it comes too early or too late. */
  cancelRequested(connection: number, from: WireSocket): void {
    this.world.operation(this.world.outside, `cancel c${connection}`, async () => {
      from.destroy()
      for (const [pid, waiter] of this.waiters) {
        if (waiter.socket.id === connection) return await this.cancel(pid, waiter)
      }
    })
  }

  private cancelLater(pid: number, waiter: Waiter): void {
    this.world.operation(this.world.outside, `statement_timeout of c${waiter.socket.id}`, async () => {
      if (this.waiters.get(pid) === waiter) await this.cancel(pid, waiter)
    })
  }

  private async cancel(pid: number, waiter: Waiter): Promise<void> {
    this.counts.cancels++
    this.waiters.delete(pid)
    await this.rescued(this.server.query(`select pg_cancel_backend(${pid})`))
    thaw(pid)
    await this.settle(waiter, pid, true, true)
  }

  /** Whom each of these backends waits for. */
  private async locks(pids: ReadonlyArray<number>): Promise<ReadonlyMap<number, ReadonlyArray<number>>> {
    this.counts.probes++
    const asked = this.server.query(
      `select l.pid, array_to_string(pg_blocking_pids(l.pid), ',') from pg_locks l
       where not l.granted and l.pid in (${pids.join()})`
    )
    const rows = await this.rescued(asked)
    return new Map(rows.map(([pid, blockers]) => [Number(pid), blockers ? blockers.split(",").map(Number) : []]))
  }

  /**
   * Waits for what the server is asked. A backend that was stopped just when it looked at the lock table keeps that locked,
   * and with it everybody else: those that are let go for a moment wait on, and are stopped again before anything goes on.
   */
  private async rescued<A>(asked: Promise<A>): Promise<A> {
    let rescuing: Promise<void> | undefined
    const timer = real.setTimeout(() => {
      rescuing = this.rescue()
    }, rescueAfterMs)
    try {
      return await asked
    } finally {
      real.clearTimeout(timer)
      await rescuing
    }
  }

  private async rescue(): Promise<void> {
    this.counts.rescues++
    const stopped = [...this.waiters.keys()]
    stopped.forEach(thaw)
    await wait(50)
    stopped.filter((pid) => this.waiters.has(pid)).forEach(freeze)
  }

  /** Statements whose lock has been granted are ordinary choices again. */
  private async grant(): Promise<void> {
    if (!this.released) return
    this.released = false
    if (this.waiters.size === 0) return
    const blocked = await this.locks([...this.waiters.keys()])
    for (const [pid, waiter] of this.waiters) {
      if (blocked.has(pid)) continue
      this.waiters.delete(pid)
      this.world.operation(this.world.outside, `c${waiter.socket.id} gets its lock`, () => {
        thaw(pid)
        return this.settle(waiter, pid, true)
      })
    }
  }
}

const closesCircle = (blockers: ReadonlyMap<number, ReadonlyArray<number>>, from: number): boolean => {
  const seen = new Set<number>()
  const toVisit = [...(blockers.get(from) ?? [])]
  for (let pid = toVisit.pop(); pid !== undefined; pid = toVisit.pop()) {
    if (pid === from) return true
    if (seen.has(pid)) continue
    seen.add(pid)
    toVisit.push(...(blockers.get(pid) ?? []))
  }
  return false
}
