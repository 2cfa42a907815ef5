/** How far each consumer group is in each partition (`bus.consumer_groups`), and reading on from there. */
import { Context, Duration, Effect } from "effect"
import type { SqlClient, SqlError } from "effect/sql"
import * as Database from "../../postgres/Database.ts"
import { isFor } from "../DeadLetters.ts"
import { type BusMessage, type Subscription, turnForever } from "../EventBus.ts"
import { columns, type LogRow, toLetter } from "./LogRow.ts"
import { partitionCount } from "./Partition.ts"
import type { Sleepers } from "./Sleepers.ts"

/** How long a consumer that has just worked lets events gather: under load, a few bigger batches instead of many small ones. */
const gatherFor = Duration.millis(100)

/** Events of a partition that a group passes over at a time. */
const lookAhead = 1_000

/** Where that gathers which is published while a batch is handled: it is there when the batch is done, and with its commit. */
export const WithBatch = Context.Reference<Array<BusMessage> | undefined>("merkato/infra/PublishedWithBatch", {
  defaultValue: () => undefined
})

export const make = (
  sql: SqlClient.SqlClient,
  sleepers: Sleepers,
  append: (messages: ReadonlyArray<BusMessage>) => Effect.Effect<void, SqlError.SqlError>
) => {
  const fields = sql.literal(columns)
  const unhurried = sql.literal(Database.unhurried)

  // Reads of the log are sub-queries that the planner cannot turn into joins ("offset 0", a scalar "exists"): as joins they
  // may become scans of the whole log.

  /**
   * Takes what partitions of a group nobody else has at the moment, moves the group past what is next in them and hands that
   * over, in one transaction: what is not handled goes back. Its commit waits for no disk: a place that a crash of the
   * server loses is an earlier one, and who reads on from there has its inbox. Whether there is more in them.
   */
  const consume = <R>({ consumerGroup, topics, eventTypes, batchSize, handle }: Subscription<R>) => {
    const wanted = eventTypes === undefined ? sql.literal("true") : sql`event_type = any(${eventTypes}::text[])`
    return sql.withTransaction(
      Effect.gen(function* () {
        // A partition without anything that is wanted comes as a row without an event.
        const found = yield* sql<{ more: boolean } & (LogRow | { offset: null })>`
          with mine as materialized (
            select g.topic as of_topic, g.partition as of_partition, g.next_offset as first,
              least(p.next_offset, g.next_offset + ${batchSize}) as beyond,
              p.next_offset > g.next_offset + ${batchSize} as more, ${unhurried}
            from bus.consumer_groups g join bus.partitions p using (topic, partition)
            where g.consumer_group = ${consumerGroup} and g.topic = any(${topics}::text[]) and p.next_offset > g.next_offset
            order by g.topic, g.partition for update of g skip locked
          ), moved as (
            update bus.consumer_groups g set next_offset = beyond from mine
            where g.consumer_group = ${consumerGroup} and g.topic = of_topic and g.partition = of_partition
          )
          select more, ${fields} from mine left join lateral (
            select * from bus.log
            where topic = of_topic and partition = of_partition and "offset" >= first and "offset" < beyond and ${wanted}
            offset 0
          ) as next on true
          order by topic, partition, "offset"`
        const rows = found.filter((row) => row.offset !== null)
        const events = rows.map(({ more: _, ...row }) => toLetter(row)).filter(isFor(consumerGroup))
        const published: Array<BusMessage> = []
        if (events.length > 0) yield* Effect.provideService(handle(events), WithBatch, published)
        if (published.length > 0) yield* append(published)
        return found.some(({ more }) => more)
      })
    )
  }

  const unread = (consumerGroup: string, topics: ReadonlyArray<string>) => sql<{
    topic: string
    partition: number
    registered: boolean
    waiting: number
  }>`
    select p.topic, p.partition, g.topic is not null as registered,
      p.next_offset - coalesce(g.next_offset, 0) as waiting
    from bus.partitions p
    left join bus.consumer_groups g
      on g.consumer_group = ${consumerGroup} and g.topic = p.topic and g.partition = p.partition
    where p.topic = any(${topics}::text[]) and p.next_offset > coalesce(g.next_offset, 0)`

  /**
   * Moves a group past the next events, where it wants none of them: one statement, and nothing is read. Not more of them
   * than it can look through in a moment, however far behind it is. Whether there may be something that it wants.
   */
  const passOver = <R>({ consumerGroup, topics, eventTypes }: Subscription<R>) =>
    eventTypes === undefined
      ? Effect.succeed(true)
      : sql<{ left: boolean }>`
          with mine as (
            select g.topic, g.partition, g.next_offset, p.next_offset as "end",
              least(p.next_offset, g.next_offset + ${lookAhead}) as beyond, ${unhurried}
            from bus.consumer_groups g join bus.partitions p using (topic, partition)
            where g.consumer_group = ${consumerGroup} and g.topic = any(${topics}::text[]) and p.next_offset > g.next_offset
            for update of g skip locked
          ), judged as materialized (
            select mine.*, (select exists (
              select from bus.log l
              where l.topic = mine.topic and l.partition = mine.partition
                and l."offset" >= mine.next_offset and l."offset" < beyond and l.event_type = any(${eventTypes}::text[])
            )) as wanted
            from mine
          ), passed as (
            update bus.consumer_groups g set next_offset = beyond from judged
            where g.consumer_group = ${consumerGroup} and g.topic = judged.topic and g.partition = judged.partition
              and not wanted
          )
          select wanted or beyond < "end" as left from judged`.pipe(Effect.map((rows) => rows.some(({ left }) => left)))

  const subscribe = <R>(options: Subscription<R>): Effect.Effect<never, never, R> => {
    const { consumerGroup, topics } = options
    const register = Effect.gen(function* () {
      const fresh = (yield* unread(consumerGroup, topics)).filter((partition) => !partition.registered)
      if (fresh.length === 0) return
      yield* sql`
        insert into bus.consumer_groups (consumer_group, topic, partition, next_offset)
        select ${consumerGroup}, topic, partition, 0
        from unnest(${fresh.map((row) => row.topic)}::text[], ${fresh.map((row) => row.partition)}::int[]) as p (topic, partition)
        order by topic, partition on conflict do nothing`
    })
    return Effect.scoped(
      Effect.gen(function* () {
        const self = yield* sleepers.add(options)
        let registered = 0
        const turn = Effect.gen(function* () {
          const wanted = self.rise()
          // Partitions come into being with their first event, all of a topic's within its first few.
          if (registered < topics.length * partitionCount) {
            yield* register
            const [row] = yield* sql<{ count: number }>`
              select count(*) as count from bus.consumer_groups
              where consumer_group = ${consumerGroup} and topic = any(${topics}::text[])`
            registered = row?.count ?? 0
          }
          const more = (wanted || (yield* passOver(options))) && (yield* consume(options))
          if (more) return
          yield* Effect.sleep(gatherFor)
          yield* self.sleep
        })
        return yield* turnForever(`Consumer group ${consumerGroup}`, turn)
      })
    )
  }

  const lag = Effect.fnUntraced(function* (consumerGroup: string, topics: ReadonlyArray<string>) {
    const rows = yield* unread(consumerGroup, topics)
    return rows.reduce((sum, row) => sum + row.waiting, 0)
  })

  return { subscribe, lag }
}
