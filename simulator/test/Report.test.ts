import { expect, test } from "bun:test"
import { Report } from "../Report.ts"
import type { Outcome } from "../Run.ts"

const calm: Outcome = {
  seed: 1,
  hash: "",
  problems: [],
  topology: "",
  counts: {},
  answers: {},
  trace: [],
  cpuMs: 0,
  ms: 0
}

/** What a campaign must have met, each by one way of it. */
const met = {
  "lock waits": "lockWaits",
  deadlocks: "deadlocks",
  cancels: "cancels",
  kills: "kill",
  "lost replies": "replyLost",
  takeovers: "takeovers",
  "late compensations": "lateCompensations",
  "gateway lies": "gatewayForgetsToAnswer",
  duplicates: "eventDuplicated"
}

test("a campaign of 50 runs that never met a kind of trouble says which, and one that met it once does not", () => {
  const report = new Report()
  for (let run = 1; run < 50; run++) report.add(calm)
  expect(report.missing).toEqual([])
  report.add(calm)
  for (const [what, count] of Object.entries(met)) {
    expect(report.missing).toContain(what)
    expect(report.text(1).split("\n")).toContain(`NOT TESTED: the whole campaign met no ${what}`)
    report.add({ ...calm, counts: { [count]: 1 } })
    expect(report.missing).not.toContain(what)
  }
})

test("runs that broke a promise are counted", () => {
  const report = new Report()
  report.add(calm)
  report.add({ ...calm, problems: [{ invariant: "money is taken once", details: [] }] })
  expect([report.runs, report.failed]).toEqual([2, 1])
})
