import { Data, Effect, Schedule, type Scope } from "effect"
import {
  type API,
  type Broker,
  type Connection,
  ConnectionPool,
  fetchV13,
  findCoordinatorV4,
  findErrorBy,
  listOffsetsV7,
  metadataV12,
  type RecordsBatch
} from "@platformatic/kafka"

/** A broker did not do what it was asked, or could not be asked. */
export class KafkaFailure extends Data.TaggedError("KafkaFailure")<{ readonly cause: unknown }> {
  /** Whether the broker gave this as its reason, by Kafka's name of the error. */
  says(...reasons: ReadonlyArray<string>): boolean {
    const { cause } = this
    return cause instanceof Error && reasons.some((reason) => findErrorBy(cause, "apiId", reason) !== null)
  }
}

export const attempt = <A>(what: () => Promise<A>): Effect.Effect<A, KafkaFailure> =>
  Effect.tryPromise({ try: what, catch: (cause) => new KafkaFailure({ cause }) })

/** Closes a client of Kafka's; one that does not come to its end is not waited for long. */
export const closing = (client: { readonly close: () => Promise<void> }): Effect.Effect<void> =>
  Effect.ignore(
    Effect.timeout(
      attempt(() => client.close()),
      "2 seconds"
    )
  )

export interface Place {
  readonly topic: string
  readonly partition: number
}

/** A place by its name, as the bus tells offsets: `topic/partition`. */
export const placeName = ({ topic, partition }: Place): string => `${topic}/${partition}`

/** Offsets by place. */
export type Positions = ReadonlyMap<string, number>

export const topicsOf = (positions: Positions): ReadonlyArray<string> => [
  ...new Set([...positions.keys()].map((name) => name.slice(0, name.lastIndexOf("/"))))
]

/**
 * Fails where one of these topics is not among those that a broker told of. It hears of one that was just made a moment later
 * than who made it, and of all of them after its own start: who took that for the truth would read nothing for good.
 */
export const needed = (topics: ReadonlyArray<string>, told: Iterable<string>): Effect.Effect<void, KafkaFailure> => {
  const there = new Set(told)
  const missing = topics.filter((topic) => !there.has(topic))
  return missing.length === 0
    ? Effect.void
    : Effect.fail(new KafkaFailure({ cause: `not there yet: ${missing.join(", ")}` }))
}

/** The partitions of each topic together, as requests want them. */
export const byTopic = <A extends Place, B>(places: ReadonlyArray<A>, partitionOf: (place: A) => B) =>
  [...Map.groupBy(places, ({ topic }) => topic)].map(([name, ofTopic]) => ({
    name,
    partitions: ofTopic.map(partitionOf)
  }))

/** What one partition had from a position on. */
export interface Fetched extends Place {
  readonly records: ReadonlyArray<FetchedRecord>
  /** Where to go on: past what is no record, too. */
  readonly next: number
}

export interface FetchedRecord {
  readonly offset: number
  readonly timestamp: number
  readonly key: Buffer | null
  readonly value: Buffer | null
  readonly headers: ReadonlyArray<readonly [Buffer | null, Buffer | null]>
}

interface TopicOnBrokers {
  readonly id: string
  /** The broker that leads each partition. */
  readonly leaders: ReadonlyArray<number>
}

/** Asks a broker. */
export const ask = <Arguments extends Array<unknown>, Answer>(
  api: API<Arguments, Answer>,
  connection: Connection,
  ...args: Arguments
): Effect.Effect<Answer, KafkaFailure> => attempt(() => api.async(connection, ...args))

const earliest = -2n
const latest = -1n

/** Answered as fast as records come only by a single broker; several are asked one by one, and waited for this long. */
const waitForEachMs = 100

/** Bytes of a partition that one fetch brings at most, unless a single batch of records is bigger. */
const partitionBytes = 1_048_576

const anyReplica = -1
const readUncommitted = 0
const controlBatch = 0x20

const isPassing = (failure: KafkaFailure): boolean =>
  failure.says("LEADER_NOT_AVAILABLE", "NOT_LEADER_OR_FOLLOWER", "UNKNOWN_TOPIC_OR_PARTITION", "UNKNOWN_TOPIC_ID")

const toRecords = (batch: RecordsBatch, from: number): ReadonlyArray<FetchedRecord> => {
  if ((batch.attributes & controlBatch) !== 0) return []
  const first = Number(batch.firstOffset)
  return batch.records.flatMap(({ offsetDelta, timestampDelta, key, value, headers }) =>
    first + offsetDelta < from
      ? []
      : [{ offset: first + offsetDelta, timestamp: Number(batch.firstTimestamp + timestampDelta), key, value, headers }]
  )
}

/**
 * Kafka's protocol as far as reading needs it, over connections of its own: a broker answers what comes over one connection
 * one by one, so who waits for records must not share it with who wants an answer now. Wants Kafka 3.1 or newer.
 */
export const make = Effect.fnUntraced(function* (options: {
  readonly brokers: ReadonlyArray<Broker>
  readonly clientId: string
  /** Longer than any answer may take on purpose. */
  readonly requestTimeoutMs: number
}): Effect.fn.Return<Wire, never, Scope.Scope> {
  const { clientId, requestTimeoutMs } = options
  const pool = yield* Effect.acquireRelease(
    Effect.sync(() => new ConnectionPool(clientId, { connectTimeout: 5_000, requestTimeout: requestTimeoutMs })),
    closing
  )
  // What goes wrong is told to who asked.
  pool.on("connect", ({ connection }) => void connection.on("error", () => {}))

  const brokers = new Map<number, Broker>()
  const topics = new Map<string, TopicOnBrokers>()

  const anyBroker = attempt(() => pool.getFirstAvailable([...options.brokers, ...brokers.values()]))

  const forget = Effect.sync(() => topics.clear())

  const learn = Effect.fnUntraced(function* (names: ReadonlyArray<string>) {
    const answer = yield* ask(metadataV12.api, yield* anyBroker, [...names], false, false).pipe(
      // One topic that is not there is told as the failure of all.
      Effect.catch((failure) => {
        const response = failure.says("UNKNOWN_TOPIC_OR_PARTITION") ? responseOf(failure) : undefined
        return response === undefined ? Effect.fail(failure) : Effect.succeed(response)
      })
    )
    brokers.clear()
    for (const { nodeId, host, port } of answer.brokers) brokers.set(nodeId, { host, port })
    for (const { name, topicId, partitions, errorCode } of answer.topics) {
      if (typeof name !== "string" || errorCode !== 0) continue
      const leaders: Array<number> = []
      for (const { partitionIndex, leaderId } of partitions) leaders[partitionIndex] = leaderId
      topics.set(name, { id: topicId, leaders })
    }
  })

  const known = Effect.fnUntraced(function* (names: ReadonlyArray<string>) {
    if (names.some((name) => !topics.has(name))) yield* learn(names)
    return names.flatMap((name) => {
      const topic = topics.get(name)
      return topic === undefined ? [] : [[name, topic] as const]
    })
  })

  const brokerOf = Effect.fnUntraced(function* (nodeId: number) {
    const broker = brokers.get(nodeId)
    if (broker === undefined) return yield* new KafkaFailure({ cause: `broker ${nodeId} is not known` })
    return yield* attempt(() => pool.get(broker))
  })

  /** Asks each broker about the places that it leads, all at once. */
  const askLeaders = <A>(
    places: ReadonlyArray<Place & { readonly leader: number; readonly id: string }>,
    request: (connection: Connection, ofBroker: typeof places) => Effect.Effect<A, KafkaFailure>
  ) =>
    Effect.forEach(
      Map.groupBy(places, ({ leader }) => leader),
      ([leader, ofBroker]) => Effect.flatMap(brokerOf(leader), (connection) => request(connection, ofBroker)),
      { concurrency: "unbounded" }
    ).pipe(Effect.tapError(() => forget))

  /** A partition that is new or changes its leader is nobody's for a moment. */
  const patiently = <A>(asking: Effect.Effect<A, KafkaFailure>) =>
    Effect.retry(asking, { schedule: Schedule.spaced("50 millis"), times: 40, while: isPassing })

  const placesOf = Effect.fnUntraced(function* (names: ReadonlyArray<string>) {
    return (yield* known(names)).flatMap(([topic, { id, leaders }]) =>
      leaders.map((leader, partition) => ({ topic, partition, leader, id }))
    )
  })

  const offsetsAt = Effect.fnUntraced(function* (names: ReadonlyArray<string>, timestamp: bigint) {
    const answers = yield* askLeaders(yield* placesOf(names), (connection, places) =>
      ask(
        listOffsetsV7.api,
        connection,
        anyReplica,
        readUncommitted,
        byTopic(places, ({ partition }) => ({ partitionIndex: partition, currentLeaderEpoch: -1, timestamp }))
      )
    )
    return new Map(
      answers.flatMap(({ topics }) =>
        topics.flatMap(({ name, partitions }) =>
          partitions.map(
            ({ partitionIndex, offset }) =>
              [placeName({ topic: name, partition: partitionIndex }), Number(offset)] as const
          )
        )
      )
    )
  }, patiently)

  const fetch = Effect.fnUntraced(function* (positions: Positions, waitMs: number) {
    const wanted = topicsOf(positions)
    const all = yield* placesOf(wanted)
    // Without a place there is nothing to wait for, and who reads on would ask again and again.
    yield* needed(
      wanted,
      all.map(({ topic }) => topic)
    )
    const places = all.filter((place) => positions.has(placeName(place)))
    const several = new Set(places.map(({ leader }) => leader)).size > 1
    const answers = yield* askLeaders(places, (connection, ofBroker) =>
      Effect.map(
        ask(
          fetchV13.api,
          connection,
          several ? Math.min(waitMs, waitForEachMs) : waitMs,
          1,
          partitionBytes * 8,
          readUncommitted,
          0,
          -1,
          [...Map.groupBy(ofBroker, ({ id }) => id)].map(([topicId, ofTopic]) => ({
            topicId,
            partitions: ofTopic.map((place) => ({
              partition: place.partition,
              currentLeaderEpoch: -1,
              fetchOffset: BigInt(positions.get(placeName(place)) ?? 0),
              lastFetchedEpoch: -1,
              partitionMaxBytes: partitionBytes
            }))
          })),
          [],
          ""
        ),
        ({ responses }) =>
          responses.flatMap(({ topicId, partitions }): ReadonlyArray<Fetched> => {
            const topic = ofBroker.find(({ id }) => id === topicId)?.topic
            if (topic === undefined) return []
            return partitions.flatMap(({ partitionIndex, records }) => {
              const from = positions.get(placeName({ topic, partition: partitionIndex })) ?? 0
              const last = records?.at(-1)
              if (records === undefined || records === null || last === undefined) return []
              return {
                topic,
                partition: partitionIndex,
                records: records.flatMap((batch) => toRecords(batch, from)),
                next: Number(last.firstOffset) + last.lastOffsetDelta + 1
              }
            })
          })
      )
    )
    return answers.flat()
  }, patiently)

  const coordinators = new Map<string, Broker>()

  const coordinatorOf = Effect.fnUntraced(function* (group: string) {
    const known = coordinators.get(group)
    if (known !== undefined) return known
    const [found] = (yield* ask(findCoordinatorV4.api, yield* anyBroker, 0, [group])).coordinators
    if (found === undefined) return yield* new KafkaFailure({ cause: `group ${group} has no coordinator` })
    coordinators.set(group, found)
    return found
  })

  const askCoordinator: Wire["askCoordinator"] = (group, request) =>
    coordinatorOf(group).pipe(
      Effect.flatMap((broker) => attempt(() => pool.get(broker))),
      Effect.flatMap(request),
      // It may have moved.
      Effect.tapError(() => Effect.sync(() => coordinators.delete(group)))
    )

  return {
    partitions: placesOf,
    starts: (names) => offsetsAt(names, earliest),
    ends: (names) => offsetsAt(names, latest),
    since: (names, millis) => offsetsAt(names, BigInt(millis)),
    fetch,
    askCoordinator
  }
})

/** What a broker answered along with an error. */
const responseOf = ({ cause }: KafkaFailure): Metadata | undefined =>
  cause instanceof Error && "response" in cause && isMetadata(cause.response) ? cause.response : undefined

type Metadata = metadataV12.MetadataResponse

const isMetadata = (response: unknown): response is Metadata =>
  typeof response === "object" && response !== null && "topics" in response && "brokers" in response

export interface Wire {
  /** All partitions of those of these topics that exist. */
  readonly partitions: (topics: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<Place>, KafkaFailure>
  /** The first offset that is still there, of each partition. */
  readonly starts: (topics: ReadonlyArray<string>) => Effect.Effect<Positions, KafkaFailure>
  /** The offset of the next record, of each partition. */
  readonly ends: (topics: ReadonlyArray<string>) => Effect.Effect<Positions, KafkaFailure>
  /** The offset of the first record that is not older, of each partition; -1 where all are. */
  readonly since: (topics: ReadonlyArray<string>, millis: number) => Effect.Effect<Positions, KafkaFailure>
  /** What stands from these positions on; waits a while for the first record. */
  readonly fetch: (positions: Positions, waitMs: number) => Effect.Effect<ReadonlyArray<Fetched>, KafkaFailure>
  /** Asks the broker that coordinates a group. */
  readonly askCoordinator: <A>(
    group: string,
    request: (connection: Connection) => Effect.Effect<A, KafkaFailure>
  ) => Effect.Effect<A, KafkaFailure>
}
