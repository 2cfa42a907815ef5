/** Who puts a dead letter back: all who want to, claim it in one partition, and so agree on who was first. */
import { Clock, Effect, Option, Schema } from "effect"
import * as Ids from "@merkato/domain/kernel/Ids"
import type { Send } from "./Sender.ts"
import { placeName, type Wire } from "./Wire.ts"

/** Which dead letters were put back, by whom; of one partition. */
export const topic = "bus.requeues"

/** How long who wants to put a dead letter back has it for itself. */
const claimMs = 60_000

/** How long a reader waits for what it knows to be there before it asks again. */
const waitMs = 1_000

/** Somebody is about to put a letter back, or has done so. */
const Claim = Schema.Struct({ letter: Schema.String, by: Schema.String, done: Schema.Boolean })
type Claim = typeof Claim.Type

const decodeClaim = Schema.decodeUnknownOption(Schema.fromJsonString(Claim))

/** Who has a letter, since when. */
interface Holder {
  readonly by: string
  readonly at: number
  readonly done: boolean
}

export const make = (wire: Wire, send: Send) => {
  const place = placeName({ topic, partition: 0 })

  const claims = Effect.gen(function* () {
    const [starts, ends] = yield* Effect.all([wire.starts([topic]), wire.ends([topic])])
    const found: Array<Claim & { readonly at: number }> = []
    const end = ends.get(place) ?? 0
    for (let position = starts.get(place) ?? 0; position < end; ) {
      for (const { records, next } of yield* wire.fetch(new Map([[place, position]]), waitMs)) {
        for (const { value, timestamp } of records) {
          const claim = decodeClaim(value?.toString() ?? "")
          if (Option.isSome(claim)) found.push({ ...claim.value, at: timestamp })
        }
        position = next
      }
    }
    return found
  })

  /** Who has put back which letters, or is about to. */
  const holders = Effect.gen(function* () {
    const holders = new Map<string, Holder>()
    for (const { letter, by, at, done } of yield* claims) {
      const held = holders.get(letter)
      const isFree = held === undefined || (!held.done && at - held.at > claimMs)
      if (held?.by === by ? done : isFree) holders.set(letter, { by, at, done })
    }
    return holders
  })

  const write = Effect.fnUntraced(function* (claims: ReadonlyArray<Claim>) {
    const timestamp = BigInt(yield* Clock.currentTimeMillis)
    yield* send(
      claims.map((claim) => ({ topic, key: claim.letter, value: JSON.stringify(claim), headers: {}, timestamp }))
    )
  })

  /** Tells of a letter whether it was put back, or is about to be. */
  const taken = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    const all = yield* holders
    return (letter: string): boolean => {
      const held = all.get(letter)
      return held !== undefined && (held.done || now - held.at <= claimMs)
    }
  })

  /** Claims letters under a new name; which of them are its own now. */
  const claim = Effect.fnUntraced(function* (letters: ReadonlyArray<string>) {
    const by = yield* Ids.next
    yield* write(letters.map((letter) => ({ letter, by, done: false })))
    const all = yield* holders
    return { by, own: letters.filter((letter) => all.get(letter)?.by === by) }
  })

  /** They were put back: nobody is to do it again. */
  const settle = (by: string, letters: ReadonlyArray<string>) =>
    write(letters.map((letter) => ({ letter, by, done: true })))

  return { taken, claim, settle }
}
