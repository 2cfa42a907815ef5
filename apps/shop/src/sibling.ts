// One more process of a shop that another process has started: it serves at the same port, on the same database, and ends
// with the one that started it. Not to be started by hand; see Siblings.ts.
import { Config, Effect, Layer } from "effect"
import * as Main from "@merkato/infra/runtime/Main"
import * as Telemetry from "@merkato/infra/telemetry/Telemetry"
import { everything } from "./Everything.ts"

/** Until the channel to the first process closes: it has told us to stop, or is gone. */
const untilAlone = Effect.callback<void>((resume) => {
  process.once("disconnect", () => resume(Effect.void))
  if (!process.connected) resume(Effect.void)
})

Effect.gen(function* () {
  const place = {
    port: yield* Config.Port("MERKATO_HTTP_PORT"),
    dataDir: yield* Config.String("MERKATO_DATA_DIR"),
    processes: yield* Config.Int("MERKATO_PROCESSES")
  }
  const url = yield* Config.Redacted("DATABASE_URL")
  yield* Layer.build(everything({ ...place, first: false, seed: false }, url))
  process.send?.("ready")
  yield* untilAlone
}).pipe(Effect.scoped, Effect.provide(Telemetry.layer("merkato-shop")), Main.run)
