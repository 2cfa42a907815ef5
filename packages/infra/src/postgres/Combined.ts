/** Many callers, one statement: what arrives while the database is busy goes there together. */
import { Cause, Context, Deferred, Effect, Exit, Fiber, type Scope, type Tracer } from "effect"
import { SqlError } from "effect/sql"
import { isRefused } from "./Database.ts"

/**
 * Milliseconds that a batch waits for a lock; 0: as long as it takes. Longer than batches wait for each other, and short
 * enough for those who stand behind one that waits for something else.
 */
export const LockPatience = Context.Reference<number>("merkato/infra/LockPatience", { defaultValue: () => 1_000 })

export interface Options<Request, Answer, E, R> {
  /** Names the span around a batch that has a traced caller. */
  readonly name: string
  /**
   * Answers a batch, in its order, as one statement or transaction: when it fails, nothing was written. It sees the
   * services of where it was made and nothing of its callers, so a request carries all that is the caller's own. For a
   * lock it waits at most `lockTimeoutMs`, unless that is 0.
   */
  readonly together: (
    batch: ReadonlyArray<Request>,
    lockTimeoutMs: number
  ) => Effect.Effect<ReadonlyArray<Answer>, E, R>
  /** Requests of one key never share a batch: the second one is answered after the first. */
  readonly keyOf?: (request: Request) => string
  /** Most requests of a batch; 64 unless told. */
  readonly most?: number
  /** Batches under way at a time; 2 unless told, so that one is worked on while another one is committed. */
  readonly lanes?: number
}

interface Waiting<Request, Answer, E> {
  readonly request: Request
  readonly key: string | undefined
  /** The caller's span, when it is recorded. */
  readonly span: Tracer.AnySpan | undefined
  readonly answer: Deferred.Deferred<Answer, E>
}

/**
 * Combines concurrent calls. A call that finds a lane free goes at once, alone or with those of the same moment; the
 * others wait for a lane, and whoever waits when one gets free is its next batch. So batches are as big as the load makes
 * them, and nobody waits for a batch to fill.
 *
 * Nobody fails or waits for a neighbour: when the database refuses a batch for what is in it, or it meets a lock that
 * others keep, each request is tried by itself, outside the lanes. Not when it is unknown what was written, nor when
 * everybody would fail again. A defect may be one request's, too.
 *
 * A caller that is interrupted while it waits leaves the queue; later its
 * request may be done all the same. The queue holds one request for each caller, and so is bounded by who bounds those.
 */
export const make = Effect.fnUntraced(function* <Request, Answer, E, R>(
  options: Options<Request, Answer, E, R>
): Effect.fn.Return<(request: Request) => Effect.Effect<Answer, E>, never, R | Scope.Scope> {
  const { name, together, keyOf, most = 64, lanes = 2 } = options
  const patienceMs = yield* LockPatience
  type Caller = Waiting<Request, Answer, E>
  const own = yield* Effect.context<R | Scope.Scope>()
  const scope = yield* Effect.scope
  let queue: Array<Caller> = []
  let busy = 0

  /** The first ones of the queue; of one key only the first, the others keep their place. */
  const take = (): ReadonlyArray<Caller> => {
    if (keyOf === undefined) return queue.splice(0, most)
    const keys = new Set<string | undefined>()
    const batch: Array<Caller> = []
    const left: Array<Caller> = []
    for (const caller of queue) {
      if (batch.length === most || keys.has(caller.key)) {
        left.push(caller)
        continue
      }
      keys.add(caller.key)
      batch.push(caller)
    }
    queue = left
    return batch
  }

  const ask = (callers: ReadonlyArray<Caller>, lockTimeoutMs: number) => {
    const batch = Effect.suspend(() =>
      together(
        callers.map(({ request }) => request),
        lockTimeoutMs
      )
    )
    const parent = callers.find(({ span }) => span !== undefined)?.span
    return parent === undefined
      ? Effect.withTracerEnabled(batch, false)
      : Effect.withSpan(batch, name, { parent, attributes: { "merkato.batch.size": callers.length } })
  }

  const tell = (callers: ReadonlyArray<Caller>, answers: ReadonlyArray<Answer>) => {
    callers.forEach(({ answer }, index) => {
      const given = answers[index]
      Deferred.doneUnsafe(
        answer,
        index < answers.length
          ? Exit.succeed(given as Answer)
          : Exit.die(new Error(`${name} has no answer for a caller`))
      )
    })
  }

  const fail = (callers: ReadonlyArray<Caller>, cause: Cause.Cause<E>) => {
    for (const { answer } of callers) Deferred.doneUnsafe(answer, Exit.failCause(cause))
  }

  const answer = (callers: ReadonlyArray<Caller>, lockTimeoutMs: number, otherwise: typeof fail) =>
    Effect.matchCause(ask(callers, lockTimeoutMs), {
      onSuccess: (answers) => tell(callers, answers),
      onFailure: (cause) => otherwise(callers, cause)
    }).pipe(
      // Whoever is not answered when this ends is not left waiting.
      Effect.onInterrupt(() => Effect.sync(() => fail(callers, Cause.interrupt())))
    )

  const run = Effect.runForkWith(own)
  const start = (work: Effect.Effect<void, never, R>) => {
    Fiber.runIn(run(work), scope)
  }

  const apart = (callers: ReadonlyArray<Caller>, cause: Cause.Cause<E>) => {
    const isOnes = isLocked(cause) || (callers.length > 1 && isOf(cause, isRefusal))
    if (!isOnes) return fail(callers, cause)
    for (const caller of callers) start(answer([caller], 0, fail))
  }

  /** Works until nobody waits. Those who come at the same moment are let in before each batch. */
  const lane: Effect.Effect<void, never, R> = Effect.suspend(() => {
    const batch = take()
    if (batch.length === 0) {
      busy -= 1
      return Effect.void
    }
    return Effect.andThen(Effect.andThen(answer(batch, patienceMs, apart), Effect.yieldNow), lane)
  })

  let ended = false
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      ended = true
      fail(queue.splice(0), Cause.interrupt())
    })
  )

  return (request) =>
    Effect.withFiber((fiber): Effect.Effect<Answer, E> => {
      if (ended) return Effect.interrupt
      const { span, tracerEnabled } = fiber.cache
      const caller: Caller = {
        request,
        key: keyOf?.(request),
        span: tracerEnabled && span?.sampled === true ? span : undefined,
        answer: Deferred.makeUnsafe()
      }
      queue.push(caller)
      if (busy < lanes) {
        busy += 1
        // At once, and not as a part of the caller: an interruption cannot come between.
        start(Effect.andThen(Effect.yieldNow, lane))
      }
      return Effect.onInterrupt(Deferred.await(caller.answer), () =>
        Effect.sync(() => {
          queue = queue.filter((waiting) => waiting !== caller)
        })
      )
    })
})

/** Whether every reason of a failure is a defect or such an error. */
const isOf = (cause: Cause.Cause<unknown>, is: (error: unknown) => boolean): boolean =>
  !Cause.hasInterrupts(cause) &&
  cause.reasons.every((reason) => Cause.isDieReason(reason) || (Cause.isFailReason(reason) && is(reason.error)))

const isRefusal = (error: unknown): boolean => SqlError.isSqlError(error) && isRefused(error)

const isLocked = (cause: Cause.Cause<unknown>): boolean =>
  cause.reasons.some(
    (reason) =>
      Cause.isFailReason(reason) && SqlError.isSqlError(reason.error) && reason.error.reason._tag === "LockTimeoutError"
  )
