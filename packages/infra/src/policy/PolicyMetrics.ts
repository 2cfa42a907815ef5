import { Clock, Effect, type Fiber, Metric } from "effect"

/** What came of a call or an attempt: it succeeded, got an answer that is an error, or failed (`transient`). */
export type Outcome = "success" | "answer" | "failure" | "timed_out" | "interrupted"

/** Why a policy ended a call. */
export type Refusal =
  | "deadline_exceeded"
  | "bulkhead_full"
  | "circuit_open"
  | "rate_limited"
  | "retry_budget_spent"
  | "no_time_for_a_retry"

export type CircuitState = "closed" | "open" | "half_open"

type Labels = Readonly<Record<string, string>>

// Each with its labels from the start: a metric that is given them at an update looks its series up anew every time.
const counter = (name: string, description: string) => (attributes: Labels) =>
  Metric.counter(name, { description, incremental: true, attributes })
const gauge = (name: string, description: string) => (attributes: Labels) =>
  Metric.gauge(name, { description, attributes })

const calls = counter("policy_calls_total", "Guarded calls that were begun")
const attempts = counter("policy_attempts_total", "Attempts of guarded calls, by what came of them")
const retries = counter("policy_retries_total", "Attempts that were not the first of their call")
const refusals = counter("policy_refusals_total", "Calls that a policy ended, by reason")
const transitions = counter("policy_breaker_transitions_total", "Circuits that changed their state")
const state = gauge("policy_breaker_state", "0 closed, 1 half-open, 2 open")
const inFlight = gauge("policy_in_flight", "Guarded calls that run")
const waiting = gauge("policy_waiting", "Guarded calls that wait for their turn")
const durations = (attributes: Labels) =>
  Metric.histogram("policy_call_duration_ms", {
    description: "Milliseconds of guarded calls, waiting and retries included",
    boundaries: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000],
    attributes
  })

const levels: Readonly<Record<CircuitState, number>> = { closed: 0, half_open: 1, open: 2 }

const outcomes: ReadonlyArray<Outcome> = ["success", "answer", "failure", "timed_out", "interrupted"]

/** Numbers since the process started. */
export interface Counts {
  readonly calls: number
  readonly retries: number
  readonly attempts: Readonly<Record<Outcome, number>>
  readonly refusals: Readonly<Partial<Record<Refusal, number>>>
}

type AnyFiber = Fiber.Fiber<unknown, unknown>

/** Counts one operation: for metrics (label `operation`), for `GET /ops/policies`, and as events on the caller's span. */
export class Meter {
  private calls = 0
  private retries = 0
  private readonly attempts: Record<Outcome, number> = {
    success: 0,
    answer: 0,
    failure: 0,
    timed_out: 0,
    interrupted: 0
  }
  private readonly refusals: Partial<Record<Refusal, number>> = {}
  private readonly metrics

  constructor(readonly operation: string) {
    const label = { operation }
    this.metrics = {
      calls: calls(label),
      retries: retries(label),
      durations: durations(label),
      inFlight: inFlight(label),
      waiting: waiting(label),
      state: state(label),
      attempts: new Map(outcomes.map((outcome) => [outcome, attempts({ ...label, outcome })]))
    }
  }

  get counts(): Counts {
    const { calls, retries, attempts, refusals } = this
    return { calls, retries, attempts: { ...attempts }, refusals: { ...refusals } }
  }

  called(fiber: AnyFiber) {
    this.calls += 1
    this.metrics.calls.updateUnsafe(1, fiber.context)
  }

  ended(fiber: AnyFiber, tookMs: number) {
    this.metrics.durations.updateUnsafe(tookMs, fiber.context)
  }

  attempted(fiber: AnyFiber, nth: number, outcome: Outcome) {
    this.attempts[outcome] += 1
    this.metrics.attempts.get(outcome)?.updateUnsafe(1, fiber.context)
    if (outcome !== "success") this.tell(fiber, "policy.attempt_failed", { attempt: nth, outcome })
  }

  retried(fiber: AnyFiber, nth: number, delayMs: number) {
    this.retries += 1
    this.metrics.retries.updateUnsafe(1, fiber.context)
    this.tell(fiber, "policy.retry", { attempt: nth, delayMs })
  }

  refused(fiber: AnyFiber, reason: Refusal) {
    this.refusals[reason] = (this.refusals[reason] ?? 0) + 1
    refusals({ operation: this.operation, reason }).updateUnsafe(1, fiber.context)
    this.tell(fiber, "policy.refused", { reason })
  }

  occupied(fiber: AnyFiber, running: number, waiting: number) {
    this.metrics.inFlight.updateUnsafe(running, fiber.context)
    this.metrics.waiting.updateUnsafe(waiting, fiber.context)
  }

  turned(fiber: AnyFiber, from: CircuitState, to: CircuitState) {
    const { operation } = this
    transitions({ operation, from, to }).updateUnsafe(1, fiber.context)
    this.metrics.state.updateUnsafe(levels[to], fiber.context)
    this.tell(fiber, "policy.breaker", { from, to })
  }

  /** The state is told before it first changes, too. */
  stands(fiber: AnyFiber, now: CircuitState) {
    this.metrics.state.updateUnsafe(levels[now], fiber.context)
  }

  private tell(fiber: AnyFiber, event: string, attributes: Readonly<Record<string, unknown>>) {
    const { span, tracerEnabled } = fiber.cache
    if (!tracerEnabled || span?._tag !== "Span") return
    const now = fiber.getRef(Clock.Clock).currentTimeNanosUnsafe()
    span.event(event, now, { "policy.operation": this.operation, ...attributes })
  }
}

/** Does something with the fiber at hand: what counts needs its metrics, its span and its clock. */
export const withFiber = (effect: (fiber: AnyFiber) => void): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    effect(fiber)
    return Effect.void
  })
