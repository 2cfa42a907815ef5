/** Events as the contexts would have told them: into their stores, and of the last week onto the bus, read by everybody. */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { dayMs } from "@merkato/domain/kernel/Day"
import { partitionCount } from "@merkato/infra/events/postgres/Partition"
import { contextNames, contexts } from "@merkato/services/contexts"
import type { Plan } from "./Size.ts"

/** The bus forgets after 7 days. */
const busKeptMs = 7 * dayMs

const publishers = contextNames.flatMap((name) => {
  const { topic } = contexts[name]
  return topic === undefined ? [] : [{ name, topic }]
})

const readers = contextNames.flatMap((name) => contexts[name].reads.map((reads) => ({ name, ...reads })))

/** Functions that the batches use; dropped with the schema. */
export const functions = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  // FNV-1a modulo 4, as `partitionOf` computes it: only the two lowest bits are needed, and they depend on no others.
  yield* sql`
    create or replace function history.partition_of(key text) returns int language plpgsql immutable parallel safe as $$
    declare hash int := 1;
    begin
      for i in 1..length(key) loop hash := ((hash # ascii(substr(key, i, 1))) * 3) & ${sql.literal(String(partitionCount - 1))}; end loop;
      return hash;
    end $$`
  // A number in [0, 1), the same for the same things.
  yield* sql`
    create or replace function history.chance(n bigint, seed bigint) returns float8 language sql immutable parallel safe
    return (hashint8extended(n, seed) & 2147483647)::float8 / 2147483648`
  yield* sql`
    create or replace function history.id(at timestamptz) returns text language sql volatile parallel safe
    return uuidv7(at - clock_timestamp())::text`
  yield* sql`
    create or replace function history.amount(minor bigint) returns numeric language sql immutable parallel safe
    return trim_scale(minor / 100.0)`
})

/** Gives every topic and every reader a place on the bus that lies behind much that was told and forgotten, and every stream its time. */
export const begin = Effect.fn("Told.begin")(function* (plan: Plan) {
  const sql = yield* SqlClient.SqlClient
  yield* sql`
    insert into bus.partitions (topic, partition, next_offset)
    select topic, partition, ${plan.orders}::bigint
    from unnest(${publishers.map(({ topic }) => topic)}::text[]) as topic, generate_series(0, ${partitionCount - 1}::int) as partition
    order by topic, partition
    on conflict do nothing`
  yield* sql`
    insert into bus.consumer_groups (consumer_group, topic, partition, next_offset)
    select consumer_group, topic, partition, next_offset
    from unnest(${readers.map(({ group }) => group)}::text[], ${readers.map(({ topic }) => topic)}::text[]) as r (consumer_group, topic)
    join bus.partitions using (topic)
    on conflict do nothing`
  yield* sql`update analytics.streams set newest = greatest(newest, ${plan.ends}) where stream = 'revenue'`
})

/** What a batch tells, before it is in the stores. Each row has its own id already, for who refers to it. */
export const table = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql`
    create temp table told (
      topic text not null, event_type text not null, key text not null, version int not null, at timestamptz not null,
      trace_parent text not null, correlation_id text not null, payload jsonb not null, nth bigint not null default 0,
      event_id text not null
    ) on commit drop`
)

/** Puts what was told where it belongs. */
export const store = Effect.fn("Told.store")(function* (plan: Plan) {
  const sql = yield* SqlClient.SqlClient
  const topics = yield* sql<{ topic: string }>`select distinct topic from told`
  for (const { name, topic } of publishers) {
    if (!topics.some((told) => told.topic === topic)) continue
    yield* sql`
      insert into ${sql(`${name}.events`)}
        (event_id, event_type, aggregate_id, version, occurred_at, region, trace_parent, correlation_id, payload)
      select event_id, event_type, key, version, at, 'us', trace_parent, correlation_id, payload
      from told where topic = ${topic} order by at, nth, version`
  }
  const since = new Date(plan.ends.getTime() - busKeptMs)
  const [recent] = yield* sql<{ any: boolean }>`select exists (select from told where at > ${since}) as any`
  if (recent?.any !== true) return

  // The other lane may have the bus at the moment: a statement that waited for it would not see how far its readers came.
  yield* sql`select from bus.partitions order by topic, partition for update`
  yield* sql`
    with message as materialized (
      select t.*, producer, history.partition_of(key) as partition
      from told t join unnest(
        ${publishers.map(({ topic }) => topic)}::text[], ${publishers.map(({ name }) => `${name}-service`)}::text[]
      ) as p (topic, producer) using (topic)
      where at > ${since}
    ), wanted as (
      select topic, partition, count(*) as messages from message group by topic, partition order by topic, partition
    ), taken as (
      insert into bus.partitions as p (topic, partition, next_offset)
      select topic, partition, messages from wanted
      on conflict (topic, partition) do update set next_offset = p.next_offset + excluded.next_offset
      returning topic, partition, next_offset
    ), logged as (
      insert into bus.log (topic, partition, "offset", key, event_id, event_type, envelope, trace_parent, published_at)
      select topic, partition,
        next_offset - messages - 1 + row_number() over (partition by topic, partition order by at, nth, version),
        key, event_id, event_type, jsonb_build_object('eventId', event_id, 'eventType', event_type,
          'occurredAt', to_char(at, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'producer', producer,
          'traceId', substr(trace_parent, 4, 32), 'correlationId', correlation_id, 'schemaVersion', '1.0',
          'partitionKey', key, 'region', 'us', 'aggregateVersion', version, 'payload', payload), trace_parent, at
      from message join wanted using (topic, partition) join taken using (topic, partition)
      order by at, nth, version
    )
    -- Who had read everything before has read this as well; who had not finds in its inbox that it is done.
    update bus.consumer_groups g set next_offset = taken.next_offset
    from taken join wanted using (topic, partition)
    where g.topic = taken.topic and g.partition = taken.partition and g.next_offset = taken.next_offset - messages`
  for (const { name, group, topic, eventTypes, mode } of readers) {
    if (mode === "conditional") continue
    yield* sql`
      insert into ${sql(`${name}.inbox`)} (consumer_group, event_id, received_at)
      select ${group}, event_id, at from told
      where topic = ${topic} and event_type = any(${eventTypes}::text[]) and at > ${since} order by at, nth`
  }
})
