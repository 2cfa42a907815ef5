import { Console, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { type Delivery, EventBus } from "@merkato/infra/events/EventBus"
import * as Bus from "../Bus.ts"
import * as Flags from "../Flags.ts"

/** Events read with one trip. */
const batchSize = 500

/** Events of the past shown when nothing is said. */
const lastOnes = 20

const pollEvery = "200 millis"

interface Options {
  readonly topics: ReadonlyArray<string>
  readonly fromBeginning: boolean
  readonly follow: boolean
  readonly limit: Option.Option<number>
  readonly json: boolean
}

const line = ({ topic, partition, offset, envelope }: Delivery): string =>
  `${envelope.occurredAt}  ${topic}/${partition}@${offset}  ${envelope.eventType}  ${envelope.partitionKey}  ${JSON.stringify(envelope.payload)}`

const jsonLine = ({ topic, partition, offset, key, traceParent, failure, envelope }: Delivery): string =>
  JSON.stringify({
    topic,
    partition,
    offset,
    key,
    traceParent,
    ...(failure === undefined ? {} : { failure }),
    envelope
  })

/** Where reading begins: at the beginning, at the end, or at the last few of each partition. */
const start = Effect.fnUntraced(function* ({ topics, fromBeginning, follow, limit }: Options) {
  if (fromBeginning) return new Map<string, number>()
  const ends = yield* EventBus.use((bus) => bus.ends(topics))
  const back = follow ? 0 : Option.getOrElse(limit, () => lastOnes)
  return new Map(Array.from(ends, ([place, offset]) => [place, offset - back]))
})

const tailing = Effect.fn("events.tail")(function* (options: Options) {
  const { topics, follow, fromBeginning, json } = options
  const bus = yield* EventBus
  const after = yield* start(options)
  // Without --follow what comes in while reading is not waited for.
  const inOrder = follow || fromBeginning
  const until = follow ? undefined : yield* bus.ends(topics)
  const print = (events: ReadonlyArray<Delivery>) =>
    events.length === 0 ? Effect.void : Console.log(events.map(json ? jsonLine : line).join("\n"))

  let left = Option.getOrElse(options.limit, () => (inOrder ? Number.POSITIVE_INFINITY : lastOnes))
  let last: ReadonlyArray<Delivery> = []
  while (left > 0) {
    const batch = yield* bus.read({ topics, after, limit: inOrder ? Math.min(batchSize, left) : batchSize })
    for (const { topic, partition, offset } of batch) after.set(`${topic}/${partition}`, offset)
    const events = batch.filter(
      ({ topic, partition, offset }) => until === undefined || offset <= (until.get(`${topic}/${partition}`) ?? -1)
    )
    if (inOrder) {
      yield* print(events)
      left -= events.length
    } else {
      last = [...last, ...events].slice(-left)
    }
    if (until !== undefined && [...until].every(([place, end]) => (after.get(place) ?? -1) >= end)) break
    if (batch.length === 0) yield* Effect.sleep(pollEvery)
  }
  yield* print(last)
})

const tail = Command.make(
  "tail",
  {
    topics: Flags.topicsOrDeadLetters,
    fromBeginning: Flag.Boolean("from-beginning").pipe(
      Flag.withDescription("From the oldest event that is kept (7 days)"),
      Flag.withDefault(false)
    ),
    follow: Flag.Boolean("follow").pipe(
      Flag.withAlias("f"),
      Flag.withDescription("Go on with what comes in, until Ctrl-C; without --from-beginning only that"),
      Flag.withDefault(false)
    ),
    limit: Flags.int(
      "limit",
      1,
      1_000_000,
      `End after so many events (default: the last ${lastOnes}; no end with --from-beginning or --follow)`
    ).pipe(Flag.optional),
    json: Flags.json,
    dataDir: Flags.dataDir
  },
  ({ dataDir, ...options }) => tailing(options).pipe(Bus.provide(dataDir))
).pipe(
  Command.withDescription("Print events of the bus, the latest unless told otherwise"),
  Command.withExamples([
    { command: "bun run merkato events tail -f --topic order.events", description: "Watch orders come in" },
    {
      command: "bun run merkato events tail --from-beginning --json --topic payment.events > payments.jsonl",
      description: "Everything about payments that is kept"
    }
  ])
)

export const events = Command.make("events").pipe(
  Command.withDescription(
    "What happened in the shop, as events on the bus (KAFKA_BROKERS, DATABASE_URL, or the running embedded Postgres)"
  ),
  Command.withShortDescription("What happened in the shop"),
  Command.withSubcommands([tail])
)
