import type { Context } from "effect"
import type { Faults } from "./Faults.ts"
import type { History } from "./History.ts"
import { between, type Draw, stream } from "./Prng.ts"
import { turn } from "./RealTime.ts"
import * as ProcessContext from "./ProcessContext.ts"

/** A connection that ends when its process does. */
export interface Breakable {
  /** The process that held it is gone; nobody on its side is told. */
  breakOff(): void
}

/** What the clock of a process showed for a while, in virtual time; `to` is Infinity while it still does. */
export interface ClockSpan {
  readonly process: SimProcess
  readonly from: number
  to: number
  readonly skewMs: number
}

/** A process of the simulated shop. Killed, it loses its fibers, timers and connections, and no finalizer runs. */
export interface SimProcess {
  readonly name: string
  alive: boolean
  /** Virtual time until which it does not run (a stopped virtual machine, a long collection of garbage). */
  pausedUntil: number
  /** How far its clock is off, in milliseconds; `World.setClock` changes it. */
  skewMs: number
  readonly connections: Set<Breakable>
  /** What its fibers are started with: scheduler, clock and randomness of the world. */
  readonly context: Context.Context<never>
}

interface Task {
  readonly process: SimProcess
  readonly run: () => void
}

interface Operation {
  readonly process: SimProcess
  readonly label: string
  readonly run: () => Promise<void> | void
}

interface Timer {
  readonly at: number
  /** Orders timers of the same time as they were set. */
  readonly order: number
  readonly process: SimProcess
  readonly fire: () => void
  off: boolean
}

/** How likely time goes on although there is still something to do. */
const timeGoesOn = 0.08

/** Steps without the end of a run; far beyond what any takes. */
const stuckAfterSteps = 400_000

/** The world came to a point from which nothing can happen any more. */
export class Stuck extends Error {
  override readonly name = "Stuck"
}

/**
 * The one place where anything happens. Steps of fibers, I/O and timers of all processes are lists from which the seed
 * picks, one at a time; time passes only when a timer is picked.
 */
export class World {
  now = Date.UTC(2026, 0, 5, 9)
  steps = 0
  /** The process whose code runs at the moment: whose a timer is that a library sets. */
  current: SimProcess
  /** The world outside of the shop: shoppers, operators, the network, the database server. */
  readonly outside: SimProcess
  readonly processes: Array<SimProcess> = []
  /** What processes of the shop logged as an error: never what somebody else did to them. */
  readonly errors: Array<string> = []
  /** What the clocks of all processes showed, and when. */
  readonly clocks: Array<ClockSpan> = []
  /** Asked after each step. */
  afterStep: () => void = () => {}
  /** Asked after each operation; the gate looks for locks that were granted. */
  afterOperation: () => Promise<void> = () => Promise.resolve()
  private readonly draw: Draw
  private order = 0
  /** Virtual time after which nobody is paused. */
  private pausesEnd = 0
  private tasks: Array<Task> = []
  private operations: Array<Operation> = []
  private timers: Array<Timer> = []

  constructor(
    readonly seed: number,
    readonly history: History,
    readonly faults: Faults
  ) {
    this.draw = stream(seed, "world")
    this.outside = this.spawn("outside")
    this.current = this.outside
  }

  spawn(name: string): SimProcess {
    const process: SimProcess = {
      name,
      alive: true,
      pausedUntil: 0,
      skewMs: 0,
      connections: new Set(),
      context: ProcessContext.make(this, () => process, `${name} #${this.processes.length}`)
    }
    this.processes.push(process)
    this.clocks.push({ process, from: this.now, to: Infinity, skewMs: 0 })
    return process
  }

  /** Whoever reads the clock of the process from now on is so many milliseconds ahead; behind, when that is negative. */
  setClock(process: SimProcess, skewMs: number): void {
    process.skewMs = skewMs
    this.endClock(process)
    this.clocks.push({ process, from: this.now, to: Infinity, skewMs })
  }

  private endClock(process: SimProcess): void {
    for (const span of this.clocks) if (span.process === process) span.to = Math.min(span.to, this.now)
  }

  /** Something that can happen from now on, once; it is dropped when its process dies. */
  operation(process: SimProcess, label: string, run: Operation["run"]): void {
    this.operations.push({ process, label, run })
  }

  /** A step of a fiber. */
  task(process: SimProcess, run: () => void): void {
    if (process.alive) this.tasks.push({ process, run })
  }

  /** Whole milliseconds from now; returns how to call it off. */
  timer(process: SimProcess, ms: number, fire: () => void): () => void {
    const timer = { at: this.now + Math.ceil(Math.max(ms, 0)), order: this.order++, process, fire, off: false }
    this.timers.push(timer)
    return () => {
      timer.off = true
    }
  }

  /** A choice that is the world's own, such as to which of two equal processes a request goes. */
  choose(): number {
    return this.draw()
  }

  log(line: string): void {
    this.history.add(line)
  }

  /** kill -9. */
  kill(process: SimProcess): void {
    this.log(`  kill ${process.name}`)
    process.alive = false
    this.endClock(process)
    this.operations = this.operations.filter((operation) => operation.process.alive)
    this.tasks = this.tasks.filter((task) => task.process.alive)
    this.timers = this.timers.filter((timer) => timer.process.alive)
    for (const connection of process.connections) connection.breakOff()
  }

  pause(process: SimProcess, ms: number): void {
    this.log(`  pause ${process.name} for ${ms} ms`)
    process.pausedUntil = this.now + ms
    this.pausesEnd = Math.max(this.pausesEnd, process.pausedUntil)
    this.timer(this.outside, ms, () => {})
  }

  /** Pauses it for longer than the lease of any step of the order process, and shorter than Postgres lets a transaction idle. */
  pauseLong(process: SimProcess, draw: Draw): void {
    this.pause(process, between(draw, 31_000, 58_000))
  }

  /** Time goes on for everybody at once, as when the machine slept: what is due in between is late. */
  leap(ms: number): void {
    this.log(`  leap ${ms} ms`)
    this.now += ms
  }

  /** Runs steps of fibers until all wait for something. */
  runTasks(): void {
    for (;;) {
      const task = this.pick(this.tasks)
      if (task === undefined) return
      this.as(task.process, task.run)
    }
  }

  private as(process: SimProcess, run: () => void): void {
    const before = this.current
    this.current = process
    try {
      run()
    } finally {
      this.current = before
    }
  }

  /** Takes one of those whose process runs. */
  private pick<A extends { readonly process: SimProcess }>(list: Array<A>): A | undefined {
    if (list.length === 0) return undefined
    const now = this.now
    const anyPaused =
      this.pausesEnd > now && this.processes.some((process) => process.alive && process.pausedUntil > now)
    if (!anyPaused) return list.splice(Math.floor(this.draw() * list.length), 1)[0]
    const running = list.filter((each) => each.process.pausedUntil <= now)
    const chosen = running.length === 0 ? undefined : running[Math.floor(this.draw() * running.length)]
    if (chosen !== undefined) list.splice(list.indexOf(chosen), 1)
    return chosen
  }

  private nextTimer(): Timer | undefined {
    this.timers = this.timers.filter((timer) => !timer.off && timer.process.alive)
    let next: Timer | undefined
    for (const timer of this.timers) {
      if (timer.process.pausedUntil > this.now) continue
      if (next === undefined || timer.at < next.at || (timer.at === next.at && timer.order < next.order)) next = timer
    }
    return next
  }

  private async quiesce(): Promise<void> {
    do {
      this.runTasks()
      // Promises of libraries and the sockets' own callbacks.
      await turn()
    } while (this.tasks.some((task) => task.process.pausedUntil <= this.now))
  }

  /** Goes on, one thing at a time, until `until` holds when all fibers wait. */
  async run(until: () => boolean): Promise<void> {
    for (;;) {
      await this.quiesce()
      if (until()) return
      if (++this.steps > stuckAfterSteps) throw new Stuck(`no end after ${stuckAfterSteps} steps`)
      const mayAct = this.operations.some((operation) => operation.process.pausedUntil <= this.now)
      if (!mayAct || (!this.faults.healed && this.draw() < timeGoesOn)) {
        const timer = this.nextTimer()
        if (timer !== undefined) {
          timer.off = true
          this.now = Math.max(this.now, timer.at)
          this.as(timer.process, timer.fire)
          this.afterStep()
          continue
        }
        if (!mayAct) throw new Stuck("nobody can do anything any more")
      }
      const operation = this.pick(this.operations)
      if (operation === undefined) continue
      this.log(`${this.steps} @${this.now} ${operation.process.name} ${operation.label}`)
      this.current = operation.process
      await operation.run()
      this.current = this.outside
      await this.afterOperation()
      this.afterStep()
    }
  }

  /** Nothing is left to be done, but for timers. */
  get idle(): boolean {
    return this.operations.length === 0 && this.tasks.length === 0
  }

  dropTimers(): void {
    this.timers = []
  }
}
