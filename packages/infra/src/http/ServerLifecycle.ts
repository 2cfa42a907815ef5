import { Clock, Deferred, Duration, Effect, type Fiber, Option } from "effect"
import type { Exchange, Server } from "./Exchange.ts"
import type { Limits } from "./ServerOptions.ts"
import type { Connection } from "./WebSocketConnection.ts"

/** What the whole server counts and remembers. */
export class Lifecycle {
  draining = false
  refusing = false
  inFlight = 0
  readonly drainingBegan = Deferred.makeUnsafe<void>()
  readonly connections = new Set<Connection>()
  private readonly fibers = new Set<Fiber.Fiber<void>>()
  private onIdle: (() => void) | undefined
  private unwatched: Array<Exchange> = []

  enter() {
    this.inFlight++
  }
  leave() {
    this.inFlight--
    if (this.inFlight === 0) this.onIdle?.()
  }
  follow(fiber: Fiber.Fiber<void>) {
    this.enter()
    this.fibers.add(fiber)
  }
  unfollow(fiber: Fiber.Fiber<void>) {
    this.fibers.delete(fiber)
    this.leave()
  }
  interruptAll() {
    for (const fiber of this.fibers) fiber.interruptUnsafe()
  }
  /**
   * Listening for a disconnect costs as much as a small handler, so only those that take longer than a few milliseconds
   * are listened for; a signal that is asked for late tells of an earlier disconnect too.
   */
  watch(exchange: Exchange) {
    if (this.unwatched.push(exchange) === 1) setTimeout(this.watchSlow, 5)
  }
  private readonly watchSlow = () => {
    const exchanges = this.unwatched
    this.unwatched = []
    for (const exchange of exchanges) exchange.interruptOnDisconnect()
  }
  readonly idle = Effect.callback<void>((resume) => {
    if (this.inFlight === 0) return resume(Effect.void)
    this.onIdle = () => resume(Effect.void)
    return Effect.sync(() => {
      this.onIdle = undefined
    })
  })
}

const cutOffAfter = Duration.millis(250)

export const drainAndStop = (server: Server, lifecycle: Lifecycle, limits: Limits): Effect.Effect<void> => {
  const atMost = (duration: Duration.Duration) => (wait: Effect.Effect<void>) =>
    Effect.timeoutOption(Effect.interruptible(wait), duration)
  return Effect.gen(function* () {
    lifecycle.draining = true
    yield* Deferred.succeed(lifecycle.drainingBegan, undefined)
    yield* Effect.sleep(limits.drainDelay)
    lifecycle.refusing = true
    for (const connection of lifecycle.connections) connection.close(1001, "The server is stopping")
    // Closes the listener, and every connection as it becomes idle.
    const stop = Effect.promise(() => server.stop())
    const finished = yield* (limits.reusePort ? stop : Effect.void).pipe(
      Effect.andThen(lifecycle.idle),
      Effect.andThen(stop),
      atMost(limits.drainTimeout)
    )
    if (Option.isSome(finished)) return
    yield* Effect.logWarning(`Requests were still in flight after ${Duration.format(limits.drainTimeout)} of draining`)
    lifecycle.interruptAll()
    yield* atMost(cutOffAfter)(Effect.andThen(lifecycle.idle, stop))
    yield* atMost(cutOffAfter)(Effect.promise(() => server.stop(true)))
    // Sockets live in real time, whatever clock the program runs on.
  }).pipe(Effect.provideService(Clock.Clock, Clock.Clock.defaultValue()))
}
