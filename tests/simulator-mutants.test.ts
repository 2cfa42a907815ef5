// Whether the simulator would notice: mistakes put into a copy of the source, which it has to find within 30 runs. Two of them
// here; MERKATO_SIMULATE_MUTANTS=all tries every one.
import { expect, test } from "bun:test"
import { hunt, names } from "../simulator/Mutant.ts"

const everyday = ["idempotency-outside-the-transaction", "relay-by-cursor"]
const tried = process.env["MERKATO_SIMULATE_MUTANTS"] === "all" ? names : everyday

test.each(tried)(
  "the simulator finds: %s",
  async (name) => {
    const { found, said } = await hunt(name, 1)
    expect(found ? "found" : said).toBe("found")
  },
  600_000
)
