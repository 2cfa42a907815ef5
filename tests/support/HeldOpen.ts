import { afterAll, beforeAll } from "bun:test"
import { Effect, type Scope } from "effect"

/** Opens something before the tests of a file and closes it after them; what it gives is how tests come by it. */
export const heldOpen = <A>(open: Effect.Effect<A, unknown, Scope.Scope>, withinMs: number): (() => A) => {
  let opened: A | undefined
  const closing = Promise.withResolvers<void>()
  let over: Promise<void> = Promise.resolve()
  beforeAll(
    () =>
      new Promise<void>((resolve, reject) => {
        over = Effect.gen(function* () {
          opened = yield* open
          resolve()
          yield* Effect.promise(() => closing.promise)
        }).pipe(Effect.scoped, Effect.runPromise)
        over.catch(reject)
      }),
    withinMs
  )
  afterAll(async () => {
    closing.resolve()
    await over
  }, 60_000)
  return () => {
    if (opened === undefined) throw new Error("the shop is not open")
    return opened
  }
}
