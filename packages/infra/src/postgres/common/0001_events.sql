-- Append-only. Partitioned by aggregate, since Postgres wants the partition key in every unique index.
create table events (
  position bigint generated always as identity,
  event_id text not null,
  event_type text not null,
  aggregate_id text not null,
  version integer not null,
  occurred_at timestamptz not null,
  region text not null,
  trace_parent text not null,
  correlation_id text not null,
  payload jsonb not null,
  primary key (aggregate_id, version)
) partition by hash (aggregate_id);
create table events_0 partition of events for values with (modulus 4, remainder 0);
create table events_1 partition of events for values with (modulus 4, remainder 1);
create table events_2 partition of events for values with (modulus 4, remainder 2);
create table events_3 partition of events for values with (modulus 4, remainder 3);
create index events_position on events (position);

-- Written with the events, emptied by the relay. What stands here is unpublished.
create table outbox (
  position bigint primary key,
  aggregate_id text not null,
  version integer not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- Events whose effect is done, per consumer group; written in the effect's transaction.
create table inbox (
  consumer_group text not null,
  event_id text not null,
  received_at timestamptz not null,
  primary key (consumer_group, event_id)
) partition by hash (event_id);
create table inbox_0 partition of inbox for values with (modulus 4, remainder 0);
create table inbox_1 partition of inbox for values with (modulus 4, remainder 1);
create table inbox_2 partition of inbox for values with (modulus 4, remainder 2);
create table inbox_3 partition of inbox for values with (modulus 4, remainder 3);
create index inbox_received_at on inbox (received_at);

-- answer is null while the first request runs; then lease_until says how long a repeat has to wait for it.
create table idempotency (
  caller text not null,
  operation text not null,
  key text not null,
  payload_hash text not null,
  answer jsonb,
  lease_until timestamptz,
  created_at timestamptz not null,
  primary key (caller, operation, key)
) partition by hash (caller, operation, key);
create table idempotency_0 partition of idempotency for values with (modulus 4, remainder 0);
create table idempotency_1 partition of idempotency for values with (modulus 4, remainder 1);
create table idempotency_2 partition of idempotency for values with (modulus 4, remainder 2);
create table idempotency_3 partition of idempotency for values with (modulus 4, remainder 3);
create index idempotency_created_at on idempotency (created_at);
