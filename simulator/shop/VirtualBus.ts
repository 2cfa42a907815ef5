import { Cause, Effect } from "effect"
import { isFor } from "@merkato/infra/events/DeadLetters"
import { type BusMessage, BusUnavailable, type DeadLetter, EventBus } from "@merkato/infra/events/EventBus"
import { partitionOf } from "@merkato/infra/events/postgres/Partition"
import { between } from "../kernel/Prng.ts"
import type { SimProcess, World } from "../kernel/World.ts"

interface Entry extends DeadLetter {
  /** Virtual time at which the bus took it. */
  readonly publishedAt: number
  /** Virtual time from which consumers can see it; within a partition never before the one ahead of it. */
  readonly visibleAt: number
}

/** How long a process may work on what it got before another one gets the same (Kafka's session timeout). */
const sessionMs = 10_000

/** What a group of consumers has of one partition. */
interface Place {
  committed: number
  /** Who works on it, and until when it is theirs. */
  holder: { readonly process: SimProcess; readonly until: number; readonly lease: number } | undefined
}

const pollMs = 4_000

/**
 * The event bus of the world: durable, outlives every process, and does what a bus may do to its users. At least once,
 * in order per key, a group's partition with one member at a time as far as anyone can tell: a member that is slow is
 * replaced while it still works. Publishers and committers may lose the answer after it happened.
 */
export class VirtualBus {
  readonly partitions = new Map<string, Array<Entry>>()
  private readonly places = new Map<string, Place>()
  private readonly groups = new Map<string, ReadonlyArray<string>>()
  private leases = 0
  redelivered = 0

  constructor(private readonly world: World) {}

  /** One trip of a process to the bus, as an operation of the world. */
  private trip<A, E>(process: SimProcess, label: string, run: () => Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.callback<A, E>((resume) => this.world.operation(process, `bus ${label}`, () => resume(run())))
  }

  private append(message: BusMessage): void {
    const { world } = this
    const partition = partitionOf(message.key)
    const place = `${message.topic}/${partition}`
    const entries = this.partitions.get(place) ?? []
    this.partitions.set(place, entries)
    const delay = world.faults.happens("eventDelayed")
      ? between(() => world.faults.amount("eventDelayed"), 1, 3_000)
      : 0
    entries.push({
      ...message,
      partition,
      offset: entries.length,
      requeued: false,
      failedAt: new Date(world.now),
      publishedAt: world.now,
      visibleAt: Math.max(world.now + delay, entries.at(-1)?.visibleAt ?? 0)
    })
  }

  private readonly publish = (process: SimProcess) => (messages: ReadonlyArray<BusMessage>) =>
    messages.length === 0
      ? Effect.void
      : this.trip(process, `publish ${messages.map(({ envelope }) => envelope.eventId).join(" ")}`, () => {
          const { faults } = this.world
          if (faults.happens("publishRefused")) {
            this.world.log("  refused")
            return Effect.fail(new BusUnavailable({ cause: "the broker is away" }))
          }
          for (const message of messages) {
            this.append(message)
            // A producer that had no answer from the broker sends the same again.
            if (faults.happens("eventDuplicated")) this.append(message)
          }
          if (!faults.happens("publishAnswerLost")) return Effect.void
          this.world.log("  published, and the answer is lost")
          return Effect.fail(new BusUnavailable({ cause: "no answer from the broker" }))
        })

  private place(group: string, name: string): Place {
    const key = `${group} ${name}`
    const known = this.places.get(key) ?? { committed: 0, holder: undefined }
    this.places.set(key, known)
    return known
  }

  private names(topics: ReadonlyArray<string>): ReadonlyArray<string> {
    return [...this.partitions.keys()].filter((name) => topics.includes(name.slice(0, name.lastIndexOf("/"))))
  }

  /** What is next for a member of a group, of all partitions that nobody else works on. */
  private fetch(process: SimProcess, group: string, topics: ReadonlyArray<string>, batchSize: number) {
    const { world } = this
    const taken: Array<{ readonly place: Place; readonly lease: number; readonly beyond: number }> = []
    const batch: Array<Entry> = []
    for (const name of this.names(topics)) {
      const place = this.place(group, name)
      const { holder } = place
      const held = holder !== undefined && holder.process.alive && holder.until > world.now
      if (held && !(holder.process !== process && world.faults.happens("rebalance"))) continue
      const visible = (this.partitions.get(name) ?? []).filter(
        ({ offset, visibleAt }) => offset >= place.committed && visibleAt <= world.now
      )
      if (visible.length === 0) continue
      const next = visible.slice(0, batchSize)
      if (holder !== undefined) this.redelivered += next.length
      const lease = ++this.leases
      place.holder = { process, until: world.now + sessionMs, lease }
      taken.push({ place, lease, beyond: place.committed + next.length })
      batch.push(...next)
    }
    return { taken, batch }
  }

  private readonly subscribe =
    (process: SimProcess): EventBus["Service"]["subscribe"] =>
    (options) => {
      const { consumerGroup, topics, eventTypes, batchSize, handle } = options
      this.groups.set(consumerGroup, topics)
      const { faults } = this.world
      const turn = Effect.gen({ self: this }, function* () {
        const { taken, batch } = yield* this.trip(process, `fetch ${consumerGroup}`, () => {
          const fetched = this.fetch(process, consumerGroup, topics, faults.happens("consumerSlow") ? 1 : batchSize)
          if (fetched.batch.length > 0) {
            this.world.log(`  ${fetched.batch.map(({ envelope }) => envelope.eventId).join(" ")}`)
          }
          return Effect.succeed(fetched)
        })
        if (taken.length === 0) return yield* Effect.sleep(pollMs)
        if (faults.happens("consumerSlow")) yield* Effect.sleep(faults.amount("consumerSlow") * 2 * sessionMs)
        const wanted = batch
          .filter(isFor(consumerGroup))
          .filter(({ envelope }) => eventTypes?.includes(envelope.eventType) ?? true)
        const done = wanted.length === 0 ? Effect.succeed(true) : handled(handle(wanted))
        const commit = (yield* done) && !faults.happens("commitLost")
        yield* this.trip(process, `${commit ? "commit" : "no commit"} ${consumerGroup}`, () => {
          for (const { place, lease, beyond } of taken) {
            if (place.holder?.lease !== lease) continue
            place.holder = undefined
            if (commit) place.committed = Math.max(place.committed, beyond)
            else this.redelivered += beyond - place.committed
          }
          return Effect.void
        })
        if (!commit) yield* Effect.sleep(pollMs)
      })
      return Effect.forever(turn)
    }

  /** Events that a group has still to take, and whether somebody works on some. */
  lag(group: string): number {
    const names = this.names(this.groups.get(group) ?? [])
    return names.reduce(
      (sum, name) => sum + (this.partitions.get(name)?.length ?? 0) - this.place(group, name).committed,
      0
    )
  }

  get subscribedGroups(): ReadonlyArray<string> {
    return [...this.groups.keys()]
  }

  private deadLetters(): ReadonlyArray<Entry> {
    return [...this.partitions].flatMap(([name, entries]) =>
      name.includes(".dlq/") ? entries.filter(({ requeued }) => !requeued) : []
    )
  }

  /** What an operator does with dead letters once the trouble is over: puts them back. How many. */
  requeueAll(): number {
    const letters = this.deadLetters()
    for (const letter of letters) {
      Object.assign(letter, { requeued: true })
      const { failure, topic: _dead, ...message } = letter
      if (failure === undefined) continue
      this.world.history.remark(`  dead letter of ${failure.consumerGroup}: ${failure.reason}`)
      this.append({ topic: failure.topic, ...message, failure })
    }
    return letters.length
  }

  /** The port of one process. Nobody who is simulated follows, reads or administers the bus through it. */
  portOf(process: SimProcess): EventBus["Service"] {
    const notHere = Effect.die(new Error("The simulated processes only publish and subscribe"))
    return EventBus.of({
      publish: this.publish(process),
      subscribe: this.subscribe(process),
      follow: () => notHere,
      read: () => notHere,
      ends: () => notHere,
      deadLetters: () => notHere,
      requeue: () => notHere,
      lag: () => notHere,
      expire: () => notHere
    })
  }
}

/** Whether a batch is done; what goes wrong with it is tried again by the bus. */
const handled = <R>(effect: Effect.Effect<void, BusUnavailable, R>): Effect.Effect<boolean, never, R> =>
  effect.pipe(
    Effect.as(true),
    Effect.catchCause((cause) =>
      Cause.hasInterruptsOnly(cause)
        ? Effect.interrupt
        : Effect.as(Effect.logWarning("A batch of events failed", cause), false)
    )
  )
