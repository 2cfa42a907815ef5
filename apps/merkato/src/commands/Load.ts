import { Clock, Console, Duration, Effect } from "effect"
import { Command, Flag } from "effect/cli"
import { CommandFailed } from "../Failure.ts"
import * as Flags from "../Flags.ts"
import * as LoadRun from "../LoadRun.ts"
import * as Progress from "../Progress.ts"
import { Shop } from "../Shop.ts"

/** Whether an address is this machine and no other. */
export const isLoopback = (url: string): boolean =>
  /^(?:localhost|[^.]+\.localhost|127(?:\.\d{1,3}){3}|\[::1\])$/.test(new URL(url).hostname)

interface Options {
  readonly clients: number
  readonly duration: Duration.Duration
  readonly mix: LoadRun.Mix
}

const loading = Effect.fn("load")(function* ({ clients, duration, mix }: Options) {
  const shop = yield* Shop
  const measured = new LoadRun.Measured()
  const durationMs = Duration.toMillis(duration)
  const { running } = yield* LoadRun.run({ mix, clients, durationMs, measured })
  const begun = yield* Clock.currentTimeMillis

  const result = Effect.gen(function* () {
    const elapsedMs = (yield* Clock.currentTimeMillis) - begun
    yield* Console.log(`${mix} on ${shop.url}, ${clients} clients, ${(elapsedMs / 1_000).toFixed(1)} s`)
    yield* Console.log(LoadRun.table(measured, elapsedMs))
  })
  yield* Effect.scoped(
    Effect.gen(function* () {
      yield* Progress.show((elapsedMs) => ({
        label: mix,
        unit: "s",
        done: Math.min(durationMs, elapsedMs) / 1_000,
        total: durationMs / 1_000,
        rate: `${((measured.requests * 1_000) / Math.max(1, elapsedMs)).toFixed(0)} requests/s`
      }))
      yield* running
    })
  ).pipe(Effect.ensuring(result))

  const unanswered = [...measured.operations.values()].reduce(
    (sum, { errors }) => sum + (errors.get("unreachable") ?? 0),
    0
  )
  if (unanswered === measured.requests) return yield* new CommandFailed({ reason: `The shop at ${shop.url} is gone.` })
})

export const load = Command.make(
  "load",
  {
    url: Flags.url,
    dataDir: Flags.dataDir,
    clients: Flags.int("clients", 1, 1_024, "Clients, each with one request at a time (default 16)").pipe(
      Flag.withDefault(16)
    ),
    duration: Flags.duration("duration", Duration.seconds(1), Duration.days(1), "How long (default 10s)").pipe(
      Flag.withDefault(Duration.seconds(10))
    ),
    mix: Flag.Literals("mix", LoadRun.mixes).pipe(
      Flag.withDescription(
        "browse: look at products; order: place and pay; checkout: fill a cart, place and pay (default browse)"
      ),
      Flag.withDefault("browse" as const)
    ),
    allowRemote: Flag.Boolean("allow-remote").pipe(
      Flag.withDescription("Also where the shop is on another machine: only load what is yours"),
      Flag.withDefault(false)
    )
  },
  Effect.fnUntraced(function* ({ url, dataDir, allowRemote, ...options }) {
    if (!allowRemote && !isLoopback(url)) {
      return yield* new CommandFailed({
        reason: `${url} is not on this machine: say --allow-remote if you really mean to load it.`
      })
    }
    yield* Effect.provide(loading(options), Shop.layer({ url, dataDir }))
  })
).pipe(
  Command.withDescription(
    "Put load on a running shop and measure it: each client asks, waits for the answer, and asks again. Orders go to products " +
      "made for it (LOAD-1 …), paid with the test token"
  ),
  Command.withShortDescription("Put load on a running shop and measure it"),
  Command.withExamples([
    {
      command: "bun run merkato load --mix order --clients 32 --duration 30s",
      description: "Half a minute of purchases"
    }
  ])
)
