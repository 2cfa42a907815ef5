import { Command } from "effect/cli"
import { archive } from "./commands/Archive.ts"
import { contracts } from "./commands/Contracts.ts"
import { devices } from "./commands/Devices.ts"
import { dlq } from "./commands/Dlq.ts"
import { doctor } from "./commands/Doctor.ts"
import { events } from "./commands/Events.ts"
import { importing } from "./commands/Import.ts"
import { load } from "./commands/Load.ts"
import { replay } from "./commands/Replay.ts"
import { seed } from "./commands/Seed.ts"
import { token } from "./commands/Token.ts"
import { warehouse } from "./commands/Warehouse.ts"

/** The operators' command. */
export const merkato = Command.make("merkato").pipe(
  Command.withDescription("Look after a Merkato shop"),
  Command.withSubcommands([
    token,
    seed,
    importing,
    load,
    replay,
    events,
    archive,
    warehouse,
    dlq,
    devices,
    doctor,
    contracts
  ])
)
