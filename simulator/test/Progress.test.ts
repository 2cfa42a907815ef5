import { afterEach, expect, test } from "bun:test"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Progress } from "../Progress.ts"

const folder = mkdtempSync(join(tmpdir(), "merkato-campaign-"))
const file = join(folder, "campaign.json")
afterEach(() => rmSync(folder, { recursive: true, force: true }))

test("a campaign goes on with the seeds that are left, and with those that broke something until they break nothing", () => {
  const left = (progress: Progress) => [1, 2, 3, 4].filter((seed) => !progress.has(seed))
  const begun = new Progress(file, 200)
  begun.record(1, [])
  begun.record(2, ["money is taken once"])
  begun.record(3, [])
  const resumed = new Progress(file, 200)
  expect(left(resumed)).toEqual([2, 4])
  resumed.record(2, ["money is taken once"])
  resumed.record(4, [])
  expect(left(new Progress(file, 200))).toEqual([2])
  expect(JSON.parse(readFileSync(file, "utf8"))).toEqual({
    commands: 200,
    done: [[1, 4]],
    broken: [{ seed: 2, invariants: ["money is taken once"] }]
  })
  const mended = new Progress(file, 200)
  mended.record(2, [])
  expect(left(new Progress(file, 200))).toEqual([])
  expect(() => new Progress(file, 100)).toThrow("is of runs with 200 commands")
})
