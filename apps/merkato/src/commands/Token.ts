import { Console, Duration, Effect, Layer } from "effect"
import { Command, Flag } from "effect/cli"
import { UserId } from "@merkato/domain/kernel/Ids"
import { defaultRegion, Region } from "@merkato/domain/kernel/Region"
import { Principal } from "@merkato/domain/kernel/RequestContext"
import { KeyRing } from "@merkato/infra/auth/KeyRing"
import { Tokens } from "@merkato/infra/auth/Tokens"
import * as Flags from "../Flags.ts"

export const token = Command.make(
  "token",
  {
    user: Flag.String("user").pipe(
      Flag.withDescription("Whose token: an id such as USER-1"),
      Flag.filter(
        (id) => /^[A-Za-z0-9_-]{1,64}$/.test(id),
        () => "an id: 1 to 64 of letters, digits, _ and -"
      )
    ),
    role: Flag.Literals("role", ["shopper", "admin", "guest"]).pipe(Flag.withDescription("What they may do")),
    region: Flag.Literals("region", Region.literals).pipe(
      Flag.withDescription(`Where they shop (default ${defaultRegion})`),
      Flag.withDefault(defaultRegion)
    ),
    ttl: Flags.duration("ttl", Duration.seconds(1), Duration.days(365), "How long it holds (default 12h)").pipe(
      Flag.withDefault(Duration.hours(12))
    ),
    dataDir: Flags.dataDir
  },
  Effect.fn("token")(function* ({ user, role, region, ttl, dataDir }) {
    const principal = new Principal({ userId: UserId.make(user), role, region })
    const signed = yield* Tokens.use((tokens) => tokens.issue(principal, Math.ceil(Duration.toSeconds(ttl)))).pipe(
      Effect.provide(Tokens.layer.pipe(Layer.provide(KeyRing.layer(dataDir))))
    )
    yield* Console.log(signed)
  })
).pipe(
  Command.withDescription(
    "Print a JWT for local use, signed with the key in the data folder (made if there is none), and nothing else"
  ),
  Command.withShortDescription("Print a JWT for local use"),
  Command.withExamples([
    { command: "export TOKEN=$(bun run merkato token --user USER-1 --role shopper)", description: "Shop as USER-1" }
  ])
)
