import { Deferred, Effect } from "effect"

/**
 * Keeps a crowd that misses the same key at the same moment from all asking for it: while a read of a key is under way, its
 * outcome is that of all who ask. It goes on when whoever asked first goes away.
 */
export const make = <A, E>() => {
  const flights = new Map<string, Deferred.Deferred<A, E>>()
  return {
    once: <R>(key: string, read: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
      Effect.suspend(() => {
        const underWay = flights.get(key)
        if (underWay !== undefined) return Deferred.await(underWay)
        const flight = Deferred.makeUnsafe<A, E>()
        flights.set(key, flight)
        return read.pipe(
          Effect.onExit((exit) => {
            flights.delete(key)
            return Deferred.done(flight, exit)
          }),
          Effect.forkDetach,
          Effect.andThen(Deferred.await(flight))
        )
      })
  }
}
