import { Clock, Effect, type Latch } from "effect"
import {
  decodeConsumerProtocolAssignment,
  decodeConsumerProtocolSubscription,
  encodeConsumerProtocolAssignment,
  encodeConsumerProtocolSubscription,
  heartbeatV4,
  joinGroupV9,
  leaveGroupV5,
  offsetCommitV8,
  offsetFetchV8,
  syncGroupV5
} from "@platformatic/kafka"
import { ask, byTopic, type KafkaFailure, needed, type Place, placeName, type Positions, type Wire } from "./Wire.ts"

/** Milliseconds after which a member that is not heard of is given up on. */
const sessionMs = 10_000

/** Milliseconds that a member has to finish what it has in hand when others come or go. */
export const rebalanceMs = 30_000

/** How often a member says that it is there, and hears whether others came or went. */
const heartbeatEvery = "500 millis"

/** What the group agrees on: who leads it deals the partitions out. Tools know it by this name. */
const protocol = "roundrobin"

export interface Member {
  readonly memberId: string
  readonly generation: number
  readonly places: ReadonlyArray<Place>
}

/** The group goes on without this member: what it has in hand belongs to others now. */
const isLost = (failure: KafkaFailure): boolean =>
  failure.says("UNKNOWN_MEMBER_ID", "ILLEGAL_GENERATION", "FENCED_INSTANCE_ID")

/** Deals the partitions of each topic to the members that want it, one after another. */
export const deal = (
  members: ReadonlyArray<{ readonly memberId: string; readonly topics: ReadonlyArray<string> }>,
  places: ReadonlyArray<Place>
): ReadonlyMap<string, ReadonlyArray<Place>> => {
  const hands = new Map(members.map(({ memberId }) => [memberId, new Array<Place>()]))
  const inOrder = members.toSorted((a, b) => (a.memberId < b.memberId ? -1 : 1))
  for (const [nth, place] of places.entries()) {
    const takers = inOrder.filter(({ topics }) => topics.includes(place.topic))
    const taker = takers[nth % takers.length]
    if (taker !== undefined) hands.get(taker.memberId)?.push(place)
  }
  return hands
}

/** The id that the broker chose for who joins for the first time. */
const givenId = ({ cause }: KafkaFailure): string | undefined => {
  const response = cause instanceof Error && "response" in cause ? cause.response : undefined
  const id = typeof response === "object" && response !== null && "memberId" in response ? response.memberId : undefined
  return typeof id === "string" && id !== "" ? id : undefined
}

/**
 * A member of a consumer group. It takes part in Kafka's protocol itself, since only so it can finish and commit what it
 * has in hand before its partitions go to somebody else.
 */
export const make = (wire: Wire, group: string, topics: ReadonlyArray<string>) => {
  /** Kept over failures: who comes back under its name is not waited for as a second one. */
  let memberId = ""

  const metadata = encodeConsumerProtocolSubscription({ version: 1, topics: [...topics] })

  const joining = wire.askCoordinator(group, (connection) =>
    ask(joinGroupV9.api, connection, group, sessionMs, rebalanceMs, memberId, null, "consumer", [
      { name: protocol, metadata }
    ])
  )

  const joined = Effect.catch(joining, (failure) => {
    const given = failure.says("MEMBER_ID_REQUIRED") ? givenId(failure) : undefined
    if (given === undefined) return Effect.fail(failure)
    memberId = given
    return joining
  })

  const join = Effect.gen(function* () {
    const answer = yield* joined
    memberId = answer.memberId
    const generation = answer.generationId
    const members = answer.members.map((member) => ({
      memberId: member.memberId,
      topics: decodeConsumerProtocolSubscription(member.metadata).topics
    }))
    const wanted = [...new Set(members.flatMap(({ topics }) => topics))]
    const all = members.length === 0 ? [] : yield* wire.partitions(wanted)
    // Dealt out without one of them, nobody would read it until the next change of the group.
    yield* needed(
      wanted,
      all.map(({ topic }) => topic)
    )
    const assignments = [...deal(members, all)].map(([member, places]) => ({
      memberId: member,
      assignment: encodeConsumerProtocolAssignment({
        version: 1,
        assignedPartitions: byTopic(places, ({ partition }) => partition).map(({ name, partitions }) => ({
          topic: name,
          partitions
        }))
      })
    }))
    const { assignment } = yield* wire.askCoordinator(group, (connection) =>
      ask(syncGroupV5.api, connection, group, generation, memberId, null, "consumer", protocol, assignments)
    )
    const places = decodeConsumerProtocolAssignment(assignment).assignedPartitions.flatMap(({ topic, partitions }) =>
      partitions.map((partition) => ({ topic, partition }))
    )
    return { memberId, generation, places } satisfies Member
  }).pipe(
    Effect.tapError((failure) =>
      Effect.sync(() => {
        if (isLost(failure)) memberId = ""
      })
    )
  )

  /**
   * Says that the member is there, again and again; opens the latch when others came or went. Fails when the group goes on
   * without it, or may do so: when nobody could be told for as long as a session lasts.
   */
  const heartbeats = (member: Member, changing: Latch.Latch) =>
    Effect.gen(function* () {
      let heard = yield* Clock.currentTimeMillis
      const beat = Effect.gen(function* () {
        yield* Effect.sleep(heartbeatEvery)
        yield* wire.askCoordinator(group, (connection) =>
          ask(heartbeatV4.api, connection, group, member.generation, member.memberId, null)
        )
      }).pipe(
        Effect.catchIf(
          (failure) => failure.says("REBALANCE_IN_PROGRESS"),
          () => Effect.sync(() => changing.openUnsafe())
        ),
        Effect.matchEffect({
          onSuccess: () =>
            Effect.map(Clock.currentTimeMillis, (now) => {
              heard = now
            }),
          onFailure: (failure) =>
            Effect.flatMap(Clock.currentTimeMillis, (now) => {
              if (!isLost(failure) && now - heard < sessionMs) return Effect.void
              if (isLost(failure)) memberId = ""
              return Effect.fail(failure)
            })
        })
      )
      return yield* Effect.forever(beat)
    })

  const commit = Effect.fnUntraced(function* (member: Member, positions: Positions) {
    const offsets = member.places.flatMap((place) => {
      const offset = positions.get(placeName(place))
      return offset === undefined ? [] : [{ ...place, offset }]
    })
    if (offsets.length === 0) return
    const reached = byTopic(offsets, ({ partition, offset }) => ({
      partitionIndex: partition,
      committedOffset: BigInt(offset),
      committedLeaderEpoch: -1,
      committedMetadata: null
    }))
    yield* wire.askCoordinator(group, (connection) =>
      ask(offsetCommitV8.api, connection, group, member.generation, member.memberId, null, reached)
    )
  })

  /** Others need not wait until this member is missed. */
  const leave = Effect.gen(function* () {
    if (memberId === "") return
    const members = [{ memberId, groupInstanceId: null, reason: "it stops" }]
    yield* wire.askCoordinator(group, (connection) => ask(leaveGroupV5.api, connection, group, members))
  }).pipe(Effect.timeout("2 seconds"), Effect.ignore)

  return { join, heartbeats, commit, leave }
}

/** Where a group goes on, of each partition in which it has committed something and not lost it to retention since. */
export const committed = Effect.fnUntraced(function* (wire: Wire, group: string, topics: ReadonlyArray<string>) {
  const places = yield* wire.partitions(topics)
  if (places.length === 0) return new Map<string, number>()
  const asked = byTopic(places, ({ partition }) => partition).map(({ name, partitions }) => ({
    name,
    partitionIndexes: partitions
  }))
  const { groups } = yield* wire.askCoordinator(group, (connection) =>
    ask(offsetFetchV8.api, connection, [{ groupId: group, memberEpoch: -1, topics: asked }], false)
  )
  return new Map(
    groups.flatMap(({ topics }) =>
      topics.flatMap(({ name, partitions }) =>
        partitions.flatMap(({ partitionIndex, committedOffset }) =>
          committedOffset < 0n
            ? []
            : [[placeName({ topic: name, partition: partitionIndex }), Number(committedOffset)] as const]
        )
      )
    )
  )
})
