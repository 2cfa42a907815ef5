/** Who in this process waits for something to be published, and what wakes them. */
import { Duration, Effect, Latch } from "effect"
import type { BusMessage, Subscription } from "../EventBus.ts"

/** How long a consumer sleeps when nothing is published: others may have died with a partition that they had taken. */
const sleepAtMost = Duration.seconds(2)

/** What somebody wants to be woken by. */
type Wanted = Pick<Subscription<never>, "topics" | "eventTypes">

/** Where a partition ends: the offset that its next event gets. */
interface End {
  readonly topic: string
  readonly partition: number
  readonly end: number
}

/** A consumer or follower, and what it is woken by. */
class Sleeper {
  readonly #topics: ReadonlySet<string>
  readonly #eventTypes: ReadonlySet<string> | undefined
  readonly #latch = Latch.makeUnsafe(true)
  /** Since it was last awake, something that it wants was published. */
  #wanted = false

  constructor({ topics, eventTypes }: Wanted) {
    this.#topics = new Set(topics)
    this.#eventTypes = eventTypes && new Set(eventTypes)
  }

  reads(topic: string): boolean {
    return this.#topics.has(topic)
  }

  wants({ topic, envelope }: BusMessage): boolean {
    return this.reads(topic) && (this.#eventTypes?.has(envelope.eventType) ?? true)
  }

  wake(wanted: boolean): void {
    this.#wanted ||= wanted
    this.#latch.openUnsafe()
  }

  /** What comes from now on wakes it the next time. Whether it was woken for something that it wants. */
  rise(): boolean {
    const wanted = this.#wanted
    this.#wanted = false
    this.#latch.closeUnsafe()
    return wanted
  }

  readonly sleep = Effect.raceFirst(this.#latch.await, Effect.sleep(sleepAtMost))
}

export class Sleepers {
  readonly #all = new Set<Sleeper>()
  /** Where the partitions ended when their readers were last woken. */
  readonly #ends = new Map<string, number>()

  /** Somebody who sleeps here until the scope closes. */
  readonly add = (wanted: Wanted) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const made = new Sleeper(wanted)
        this.#all.add(made)
        return made
      }),
      (made) => Effect.sync(() => this.#all.delete(made))
    )

  /** Wakes whoever wants what this process has published. */
  published(messages: ReadonlyArray<BusMessage>): void {
    for (const each of this.#all) if (messages.some((message) => each.wants(message))) each.wake(true)
  }

  /** Wakes whoever reads where a partition does not end where it did: others may have published what they want. */
  moved(ends: ReadonlyArray<End>): void {
    const moved = new Set<string>()
    for (const { topic, partition, end } of ends) {
      const place = `${topic}/${partition}`
      if (this.#ends.get(place) === end) continue
      this.#ends.set(place, end)
      moved.add(topic)
    }
    for (const topic of moved) for (const each of this.#all) if (each.reads(topic)) each.wake(false)
  }
}
