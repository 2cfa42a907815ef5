import { type Clock, Effect } from "effect"

/** A clock that shows the time it is told, in milliseconds; whoever sleeps does so by the other one. */
export const showing = (live: Clock.Clock, millis: () => number): Clock.Clock => {
  const nanos = () => BigInt(Math.round(millis())) * 1_000_000n
  return {
    currentTimeMillisUnsafe: millis,
    currentTimeMillis: Effect.sync(millis),
    currentTimeNanosUnsafe: nanos,
    currentTimeNanos: Effect.sync(nanos),
    monotonicTimeNanosUnsafe: () => live.monotonicTimeNanosUnsafe(),
    monotonicTimeNanos: live.monotonicTimeNanos,
    sleep: (duration) => live.sleep(duration)
  }
}
