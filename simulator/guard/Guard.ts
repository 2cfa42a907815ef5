import { Socket } from "node:net"
import { prng } from "../kernel/Prng.ts"
import type { World } from "../kernel/World.ts"

/**
 * While a run goes on, nothing may reach real time, real randomness or the network past the gate. What libraries
 * harmlessly use (timers, `Math.random`, `Date.now`) becomes the world's; everything else fails the run.
 */
export interface Guard {
  /** What was used although it must not be. */
  readonly leaks: ReadonlyArray<string>
  /** Puts the real globals back. */
  readonly lift: () => void
}

/** The run under guard, for the modules that stand in front of `node:crypto`. */
let guarded: { readonly leak: (what: string) => never; readonly bytes: (size: number) => Buffer } | undefined

/** Random bytes of the run at hand (the driver names its prepared statements with them), or real ones outside of runs. */
export const randomBytes = (size: number): Buffer | undefined => guarded?.bytes(size)

/** Says that something real was about to be used; outside of runs that is nobody's business. */
export const refuse = (what: string): void => {
  guarded?.leak(what)
}

const connectReally = Socket.prototype.connect
Socket.prototype.connect = function (this: Socket, ...args: Parameters<typeof connectReally>) {
  refuse("a socket")
  return connectReally.apply(this, args)
} as typeof connectReally

/** Puts the world's time and randomness in place of the real ones. */
export const stand = (world: World): Guard => {
  const leaks: Array<string> = []
  const draw = prng(world.seed ^ 0x5eed)
  const leak = (what: string): never => {
    const where = new Error(what).stack?.split("\n").slice(3, 8).join("\n") ?? ""
    leaks.push(`${what} was used past the gate\n${where}`)
    throw new Error(`The simulated shop used ${what}`)
  }
  const refusing = (what: string) => () => leak(what)

  const virtual = {
    setTimeout: (run: (...args: ReadonlyArray<unknown>) => void, ms = 0, ...args: ReadonlyArray<unknown>) =>
      world.timer(world.current, ms, () => run(...args)),
    clearTimeout: (off: unknown) => {
      if (typeof off === "function") off()
    },
    setInterval: refusing("setInterval"),
    setImmediate: refusing("setImmediate"),
    fetch: refusing("fetch")
  }
  const before = {
    setTimeout: globalThis.setTimeout,
    clearTimeout: globalThis.clearTimeout,
    setInterval: globalThis.setInterval,
    setImmediate: globalThis.setImmediate,
    fetch: globalThis.fetch,
    dateNow: Date.now,
    random: Math.random,
    performanceNow: performance.now,
    randomUUID: crypto.randomUUID,
    getRandomValues: crypto.getRandomValues,
    bunConnect: Bun.connect,
    bunServe: Bun.serve,
    bunSleep: Bun.sleep
  }
  Object.assign(globalThis, virtual)
  Date.now = () => world.now
  Math.random = draw
  performance.now = () => world.now
  Object.assign(crypto, {
    randomUUID: refusing("crypto.randomUUID"),
    getRandomValues: refusing("crypto.getRandomValues")
  })
  Object.assign(Bun, {
    connect: refusing("Bun.connect"),
    serve: refusing("Bun.serve"),
    sleep: refusing("Bun.sleep")
  })
  guarded = {
    leak,
    bytes: (size) => Buffer.from(Array.from({ length: size }, () => Math.floor(draw() * 256)))
  }

  return {
    leaks,
    lift: () => {
      guarded = undefined
      Object.assign(globalThis, {
        setTimeout: before.setTimeout,
        clearTimeout: before.clearTimeout,
        setInterval: before.setInterval,
        setImmediate: before.setImmediate,
        fetch: before.fetch
      })
      Date.now = before.dateNow
      Math.random = before.random
      performance.now = before.performanceNow
      Object.assign(crypto, { randomUUID: before.randomUUID, getRandomValues: before.getRandomValues })
      Object.assign(Bun, { connect: before.bunConnect, serve: before.bunServe, sleep: before.bunSleep })
    }
  }
}
