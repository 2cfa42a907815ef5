import type { Outcome } from "./Run.ts"

const sum = (counts: Readonly<Record<string, number>>, ...names: ReadonlyArray<string>) =>
  names.reduce((all, name) => all + (counts[name] ?? 0), 0)

/** What a campaign must have met: a promise kept in fair weather says little. */
const trouble: ReadonlyArray<readonly [what: string, of: (counts: Readonly<Record<string, number>>) => number]> = [
  ["lock waits", (counts) => sum(counts, "lockWaits")],
  ["deadlocks", (counts) => sum(counts, "deadlocks")],
  ["cancels", (counts) => sum(counts, "cancels")],
  ["kills", (counts) => sum(counts, "kill")],
  ["pauses", (counts) => sum(counts, "pause", "longPause", "ownerSleeps")],
  ["clock jumps", (counts) => sum(counts, "clockJump", "leap", "leapAfterCharge")],
  ["lost connections", (counts) => sum(counts, "dropBeforeCommit", "dropBeforeStatement")],
  ["lost replies", (counts) => sum(counts, "dropAfterCommit", "dropAfterStatement", "replyLost", "publishAnswerLost")],
  ["lost requests", (counts) => sum(counts, "requestLost")],
  [
    "delays",
    (counts) =>
      sum(counts, "requestDelayed", "replyDelayed", "eventDelayed", "consumerSlow", "commitDelayed", "statementDelayed")
  ],
  ["duplicates", (counts) => sum(counts, "requestDuplicated", "eventDuplicated", "redeliveries")],
  ["takeovers", (counts) => sum(counts, "takeovers")],
  ["late compensations", (counts) => sum(counts, "lateCompensations")],
  ["flash sales", (counts) => sum(counts, "sales")],
  ["flash sales that were canceled", (counts) => sum(counts, "salesCanceled")],
  ["lines ordered at a sale's price", (counts) => sum(counts, "linesAtSalePrice")],
  [
    "gateway lies",
    (counts) =>
      sum(
        counts,
        "gatewayRefuses",
        "gatewayDown",
        "gatewayForgetsToAnswer",
        "gatewayAnswersLate",
        "gatewayActsLate",
        "gatewayHearsTwice",
        "gatewayTalksNonsense",
        "gatewaySilentAboutRefund"
      )
  ]
]

/** Runs from which on none of the above may be missing. */
const campaignFrom = 50

/** Figures of many runs. */
export class Report {
  runs = 0
  failed = 0
  private readonly counts: Record<string, number> = {}
  private readonly answers: Record<string, number> = {}
  private cpuMs = 0

  add(outcome: Outcome): void {
    this.runs += 1
    if (outcome.problems.length > 0) this.failed += 1
    this.cpuMs += outcome.cpuMs
    for (const [name, count] of Object.entries(outcome.counts)) this.counts[name] = (this.counts[name] ?? 0) + count
    for (const [name, count] of Object.entries(outcome.answers)) this.answers[name] = (this.answers[name] ?? 0) + count
  }

  /** Kinds of trouble that a whole campaign did not meet even once. */
  get missing(): ReadonlyArray<string> {
    return this.runs < campaignFrom ? [] : trouble.flatMap(([what, of]) => (of(this.counts) === 0 ? [what] : []))
  }

  text(seconds: number): string {
    const perRun = (count: number) => (count / Math.max(1, this.runs)).toFixed(1)
    const answers = Object.entries(this.answers).toSorted(([, a], [, b]) => b - a)
    return [
      `${this.runs} runs in ${seconds.toFixed(1)} s (${((this.runs / seconds) * 60).toFixed(0)} a minute), ${this.failed} broken`,
      `per run: ${["commands", "steps", "statements", "virtualSeconds"].map((name) => `${perRun(sum(this.counts, name))} ${name}`).join(", ")}, ${perRun(this.cpuMs)} ms of CPU`,
      ...trouble.map(([what, of]) => `  ${String(of(this.counts)).padStart(8)} ${what}`),
      `answers: ${answers.map(([answer, count]) => `${count} ${answer}`).join(", ")}`,
      `SQLSTATEs: ${
        Object.entries(this.counts)
          .filter(([name]) => name.startsWith("error "))
          .map(([name, count]) => `${name.slice(6)} × ${count}`)
          .join(", ") || "none"
      }`,
      ...this.missing.map((what) => `NOT TESTED: the whole campaign met no ${what}`)
    ].join("\n")
  }
}
