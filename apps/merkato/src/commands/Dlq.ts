import { Console, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { wrongWithLetter } from "@merkato/infra/events/DeadLetters"
import { EventSchemas } from "@merkato/infra/events/EventSchemas"
import { type DeadLetter, EventBus } from "@merkato/infra/events/EventBus"
import * as Bus from "../Bus.ts"
import { CommandFailed } from "../Failure.ts"
import * as Flags from "../Flags.ts"

/** Dead letters taken with one trip; those that may not go back are passed over among so many. */
const searched = 10_000

const line = ({ failedAt, envelope, failure }: DeadLetter): string => {
  const cause =
    failure === undefined
      ? ""
      : `  ${failure.consumerGroup} (${failure.attempts} attempts): ${failure.reason.split("\n")[0]}`
  return `${failedAt.toISOString()}  ${failure?.topic ?? "?"}  ${envelope.eventType}  ${envelope.partitionKey}  event ${envelope.eventId}${cause}`
}

const jsonLine = ({ failedAt, failure, topic, partition, offset, envelope }: DeadLetter): string =>
  JSON.stringify({ failedAt: failedAt.toISOString(), topic, partition, offset, failure, envelope })

const topic = Flags.topic.pipe(Flag.optional)

const list = Command.make(
  "list",
  {
    topic,
    limit: Flags.int("limit", 1, 10_000, "At most so many, oldest first (default 100)").pipe(Flag.withDefault(100)),
    json: Flags.json,
    dataDir: Flags.dataDir
  },
  Effect.fn("dlq.list")(function* ({ topic, limit, json, dataDir }) {
    const letters = yield* EventBus.use((bus) => bus.deadLetters({ topic, limit })).pipe(Bus.provide(dataDir))
    if (letters.length > 0) return yield* Console.log(letters.map(json ? jsonLine : line).join("\n"))
    if (!json) yield* Console.log("No dead letters.")
  })
).pipe(
  Command.withDescription("List the events that a consumer gave up on, with the cause, and that were not put back")
)

/** Puts back what may go back; of the rest it says why not. */
const putBack = Effect.fnUntraced(function* (letters: ReadonlyArray<DeadLetter>) {
  const bus = yield* EventBus
  const schemas = yield* EventSchemas
  const left = letters.flatMap((letter) => {
    const reason = wrongWithLetter(letter, schemas)
    return reason === undefined ? [] : [{ letter, reason }]
  })
  const good = letters.filter((letter) => !left.some((one) => one.letter === letter))
  return { count: yield* bus.requeue(good), left }
})

const requeueAll = Effect.fnUntraced(function* (topic: Option.Option<string>) {
  const bus = yield* EventBus
  let count = 0
  while (true) {
    const done = yield* putBack(yield* bus.deadLetters({ topic, limit: searched }))
    count += done.count
    // What is left, if anything, nobody can put back: it breaks its schema, or does not say where it came from.
    if (done.count === 0) return { count, left: done.left }
  }
})

const requeueOne = Effect.fnUntraced(function* (topic: Option.Option<string>, eventId: string) {
  const bus = yield* EventBus
  const letters = yield* bus.deadLetters({ topic, limit: searched })
  const found = letters.filter(({ envelope }) => envelope.eventId === eventId)
  return found.length > 0
    ? yield* putBack(found)
    : yield* new CommandFailed({ reason: `No dead letter has the event id ${eventId}, or it was put back already.` })
})

const requeue = Command.make(
  "requeue",
  {
    topic,
    eventId: Flag.String("event-id").pipe(Flag.withDescription("The one with this event id"), Flag.optional),
    all: Flag.Boolean("all").pipe(Flag.withDescription("All, or all of --topic"), Flag.withDefault(false)),
    dataDir: Flags.dataDir
  },
  Effect.fn("dlq.requeue")(function* ({ topic, eventId, all, dataDir }) {
    if (Option.isSome(eventId) === all) {
      return yield* new CommandFailed({ reason: "Say which dead letters to put back: either --event-id or --all." })
    }
    const { count, left } = yield* (Option.isSome(eventId) ? requeueOne(topic, eventId.value) : requeueAll(topic)).pipe(
      Bus.provide(dataDir)
    )
    yield* Console.log(`${count} ${count === 1 ? "event" : "events"} put back.`)
    for (const { letter, reason } of left) {
      yield* Console.error(`Event ${letter.envelope.eventId} stays where it is. ${reason}`)
    }
  })
).pipe(
  Command.withDescription(
    "Put dead letters back into the topic they came from: the group that gave up gets them again, and no other one. What breaks its schema stays"
  )
)

export const dlq = Command.make("dlq").pipe(
  Command.withDescription(
    "Events that a consumer could not take (KAFKA_BROKERS, DATABASE_URL, or the running embedded Postgres)"
  ),
  Command.withShortDescription("Events that a consumer could not take"),
  Command.withSubcommands([list, requeue])
)
