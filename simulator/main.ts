// bun run simulate: see --help, and docs/simulator.md.
import "./guard/Install.ts"

const { main } = await import("./Command.ts")
process.exit(await main(process.argv.slice(2)))
