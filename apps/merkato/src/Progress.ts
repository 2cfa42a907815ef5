/** How far a long command is, on stderr: a bar that redraws itself on a terminal, a plain line now and then elsewhere. */
import { Clock, Effect } from "effect"

export interface State {
  readonly label: string
  readonly done: number
  readonly total: number
  /** What is counted: `orders`, `s`. */
  readonly unit: string
  /** Things a second, when that is not `done` over time. */
  readonly rate?: string
}

const barWidth = 24

/** 75 s is `1:15`. */
export const clockTime = (seconds: number): string => {
  const whole = Math.max(0, Math.round(seconds))
  const [hours, minutes, rest] = [Math.floor(whole / 3_600), Math.floor((whole % 3_600) / 60), whole % 60]
  const two = (value: number) => String(value).padStart(2, "0")
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`
}

/** One line about it: `orders [######------] 50 % 4,000/8,000 200/s ETA 0:20`. */
export const render = ({ label, done, total, unit, rate }: State, elapsedMs: number): string => {
  const share = total === 0 ? 1 : Math.min(1, done / total)
  const filled = Math.round(share * barWidth)
  const perSecond = elapsedMs === 0 ? 0 : (done * 1_000) / elapsedMs
  const speed = rate ?? `${perSecond.toFixed(perSecond < 10 ? 1 : 0)} ${unit}/s`
  const left =
    share === 1
      ? `in ${clockTime(elapsedMs / 1_000)}`
      : perSecond === 0
        ? ""
        : `ETA ${clockTime((total - done) / perSecond)}`
  const count = `${Math.floor(done).toLocaleString("en")}/${total.toLocaleString("en")} ${unit}`
  return `${label} [${"#".repeat(filled)}${"-".repeat(barWidth - filled)}] ${Math.floor(share * 100)} %  ${count}  ${speed}  ${left}`.trimEnd()
}

const onTerminal = "100 millis"
const elsewhere = "5 seconds"

/** Shows the state as it is now and then, until the scope closes; then once more. */
export const show = Effect.fn("Progress.show")(function* (state: (elapsedMs: number) => State) {
  const terminal = process.stderr.isTTY === true
  const clock = yield* Clock.Clock
  const begun = clock.currentTimeMillisUnsafe()
  const draw = (last: boolean) =>
    Effect.sync(() => {
      const elapsed = clock.currentTimeMillisUnsafe() - begun
      const line = render(state(elapsed), elapsed)
      process.stderr.write(
        terminal ? `\r\u001b[K${line.slice(0, (process.stderr.columns ?? 80) - 1)}${last ? "\n" : ""}` : `${line}\n`
      )
    })
  yield* Effect.addFinalizer(() => draw(true))
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(terminal ? onTerminal : elsewhere), draw(false))))
})
