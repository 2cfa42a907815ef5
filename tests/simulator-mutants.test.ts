// Whether the simulator would notice: mistakes put into a copy of the source, which it has to find within 30 runs. Two of them
// here; MERKATO_SIMULATE_MUTANTS=all tries every one, and one of them on a single connection.
import { expect, test } from "bun:test"
import { hunt, misfit, names } from "../simulator/Mutant.ts"

const everyday = ["idempotency-outside-the-transaction", "relay-by-cursor"]
const all = process.env["MERKATO_SIMULATE_MUTANTS"] === "all"

test("every mistake can be put into the source as it is", async () => {
  const misfits = await Promise.all(names.map(async (name) => [name, await misfit(name)]))
  expect(misfits.filter(([, reason]) => reason !== undefined)).toEqual([])
})

test.each(all ? names : everyday)(
  "the simulator finds: %s",
  async (name) => {
    const { found, said } = await hunt(name, 1)
    expect(found ? "found" : said).toBe("found")
  },
  900_000
)

if (all) {
  test("on a single connection nobody would notice that a relay reads by cursor", async () => {
    const { found, said } = await hunt("relay-by-cursor", 1, true)
    expect(found ? said : "not found").toBe("not found")
    // It was looked for in every run, and not given up on for another reason.
    expect(said).toMatch(/^30 runs in .*, 0 broken$/m)
  }, 900_000)
}
