/**
 * The machine's own timers, clock and sockets, taken before a run replaces the global ones. Only the kernel, the gate and
 * what measures may use them.
 */
export const real = {
  setTimeout: globalThis.setTimeout,
  clearTimeout: globalThis.clearTimeout,
  setImmediate: globalThis.setImmediate,
  now: performance.now.bind(performance),
  connect: Bun.connect
} as const

/** Lets everything that is ready on the event loop happen. */
export const turn = () => new Promise<void>((resolve) => void real.setImmediate(resolve))

export const wait = (ms: number) => new Promise<void>((resolve) => void real.setTimeout(resolve, ms))
