import { readFileSync } from "node:fs"
import { wait } from "../kernel/RealTime.ts"
import { Backend, type Target } from "./Backend.ts"
import * as Frames from "./Frames.ts"

export type Rows = ReadonlyArray<ReadonlyArray<string | undefined>>

const signal = (pid: number, name: "SIGSTOP" | "SIGCONT") => {
  try {
    process.kill(pid, name)
  } catch {
    // It is gone already.
  }
}

export const freeze = (pid: number) => signal(pid, "SIGSTOP")
export const thaw = (pid: number) => signal(pid, "SIGCONT")

/**
 * Whether a backend may be waiting: one that computes, or would if it were given a CPU, waits for no lock. Where the system
 * does not tell (it has no /proc), it may.
 */
export const mayWait = (pid: number): boolean => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1")
    return stat[stat.lastIndexOf(")") + 2] !== "R"
  } catch {
    return true
  }
}

/** The real server as the gate uses it: a session for the gate itself, and sessions for simulated connections. */
export class Server {
  /** Oldest first: who is handed out most has most of what is needed prepared already. */
  private readonly free: Array<Backend> = []
  private readonly order = new Map<Backend, number>()

  private constructor(
    private readonly target: Target,
    private readonly control: Backend
  ) {}

  /** Ends what a simulator that crashed left in the database: sessions, some of them stopped. */
  static async open(target: Target): Promise<Server> {
    const server = new Server(target, await Backend.open(target))
    const left = `select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`
    for (const [pid] of await server.query(left)) {
      await server.query(`select pg_terminate_backend(${pid})`)
      thaw(Number(pid))
    }
    while ((await server.query(left)).length > 0) await wait(20)
    return server
  }

  /** Asks with the gate's own session: not a step of the world. */
  async query(sql: string): Promise<Rows> {
    const reply = await this.control.ask(Frames.simpleQuery(sql))
    const error = Frames.errorOf(reply)
    if (error !== undefined) throw new Error(`${error.message} (${error.code}) in ${sql.slice(0, 2_000)}`)
    return Frames.rowsOf(reply)
  }

  /** What the server says about itself to whoever connects. */
  get greeting(): ReadonlyArray<Buffer> {
    return this.control.greeting
  }

  /** A session that nobody else has until it is given back. */
  async take(): Promise<Backend> {
    return this.free.shift() ?? (await this.another())
  }

  private async another(): Promise<Backend> {
    const backend = await Backend.open(this.target)
    this.order.set(backend, this.order.size)
    return backend
  }

  give(backend: Backend): void {
    const place = (each: Backend) => this.order.get(each) ?? 0
    const next = this.free.findIndex((each) => place(each) > place(backend))
    this.free.splice(next < 0 ? this.free.length : next, 0, backend)
  }

  /** What the server does with a transaction whose client's connection breaks, without the price of a new process. */
  async rollBack(backend: Backend): Promise<void> {
    await backend.ask(Frames.simpleQuery("rollback"))
    this.give(backend)
  }

  /** How a statement is executed must not depend on how full the tables were in the run before, when it was planned. */
  async forgetPlans(): Promise<void> {
    for (const backend of this.free) {
      await backend.ask(Frames.simpleQuery(backend.prepared.full ? "deallocate all" : "discard plans"))
      if (backend.prepared.full) backend.prepared.forget()
    }
  }

  close(): void {
    for (const backend of this.free) backend.close()
    this.control.close()
  }
}
