import type { Latencies } from "./Latencies.ts"
import type { Turn, Workload } from "./Workload.ts"

export const median = (figures: ReadonlyArray<number>): number => {
  const sorted = figures.toSorted((a, b) => a - b)
  const [low = 0, high = low] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted[Math.floor(sorted.length / 2)]]
  return (low + high) / 2
}

const range = (figures: ReadonlyArray<number>, digits = 0) =>
  `${median(figures).toFixed(digits)} (${Math.min(...figures).toFixed(digits)}–${Math.max(...figures).toFixed(digits)})`

export interface Rounds {
  readonly workload: Workload
  readonly ours: ReadonlyArray<Turn>
  /** Operations a second. */
  readonly twin: ReadonlyArray<number>
}

const calls = ({ statements }: Turn) => statements.reduce((sum, statement) => sum + statement.calls, 0)

/** The statements of the last round that took longest. */
const longest = (turn: Turn | undefined, count: number): ReadonlyArray<string> =>
  (turn?.statements ?? [])
    .slice(0, count)
    .map(
      ({ text, calls, ms, plans, planMs }) =>
        `    ${ms.toFixed(3)} ms ${calls.toFixed(3)} calls  planned ${planMs.toFixed(3)} ms ${plans.toFixed(3)} times  ${text.replaceAll(/\s+/g, " ").trim().slice(0, 110)}`
    )

/** Medians over the rounds, with their lowest and highest, as lines of text; and so many statements. */
export const report = ({ workload, ours, twin }: Rounds, statements: number): string => {
  const all = (of: (turn: Turn) => number, digits: number) => range(ours.map(of), digits)
  const ratios = ours.map((turn, index) => turn.perSecond / (twin[index] ?? Number.NaN))
  const errors = new Map<number, number>()
  for (const { byStatus } of ours) {
    for (const [status, count] of byStatus) if (status >= 400) errors.set(status, (errors.get(status) ?? 0) + count)
  }
  const part = (of: "shop" | "postgres" | "generator") => median(ours.map((turn) => turn.cpu[of])).toFixed(3)
  return [
    `\n${workload.name}: ${workload.title}`,
    `  shop        ${all((turn) => turn.perSecond, 0)} /s   p50 ${all((turn) => turn.p50, 2)} ms   p95 ${all((turn) => turn.p95, 2)} ms   p99 ${all((turn) => turn.p99, 2)} ms`,
    `  twin        ${range(twin)} /s   ${workload.twin}`,
    `  ratio       ${range(ratios, 2)}${workload.wanted === undefined ? "" : `   wanted: ${workload.wanted}`}`,
    `  CPU         shop ${part("shop")}   Postgres ${part("postgres")}   generator ${part("generator")} ms per operation`,
    `  database    ${all(calls, 2)} statements, ${all((turn) => turn.commits, 2)} commits per operation; ${all((turn) => turn.unpublished, 0)} events unpublished at the end`,
    ...longest(ours.at(-1), statements),
    ...(errors.size === 0
      ? []
      : [`  errors      ${[...errors].map(([status, count]) => `${status}: ${count}`).join(", ")}`])
  ].join("\n")
}

const latencies = (name: string, { perSecond, operations, p50, p95, p99, max }: Latencies) =>
  `  ${name.padEnd(12)}${perSecond.toFixed(0)} /s, ${operations} operations   p50 ${p50.toFixed(1)} ms   p95 ${p95.toFixed(1)} ms   p99 ${p99.toFixed(1)} ms   longest ${max.toFixed(0)} ms`

/** How long operations took at a given rate, and those of the twin at the same. */
export const paced = (name: string, turn: Turn, twin: Latencies | undefined): string => {
  const errors = [...turn.byStatus].filter(([status]) => status >= 400).map(([status, count]) => `${status}: ${count}`)
  const taken = (part: "shop" | "postgres") => turn.memory.map((memory) => memory[part].toFixed(0)).join(", ")
  const memory = `MiB: shop ${taken("shop")}; Postgres ${taken("postgres")}`
  const ours = `${latencies(name, turn)}   ${memory}${errors.length === 0 ? "" : `   errors ${errors.join(", ")}`}`
  return twin === undefined ? ours : `${ours}\n${latencies("  its twin", twin)}`
}

/** What became of a workload's figures: how many times what they were in the same round of the other shop. */
export const comparison = (before: Rounds, after: Rounds): string => {
  const times = (of: (turn: Turn) => number) =>
    median(after.ours.map((turn, round) => of(turn) / of(before.ours[round] ?? turn))).toFixed(2)
  const rates = after.ours.map((turn, round) => turn.perSecond / (before.ours[round] ?? turn).perSecond)
  const twin = median(after.twin.map((rate, round) => rate / (before.twin[round] ?? rate))).toFixed(2)
  return `  ${before.workload.name.padEnd(12)}rate ${range(rates, 2)} (its twin's ${twin})   p50 ${times((turn) => turn.p50)}   p99 ${times((turn) => turn.p99)}   CPU shop ${times(({ cpu }) => cpu.shop)}, Postgres ${times(({ cpu }) => cpu.postgres)}   statements ${times(calls)}`
}
