-- How many events each partition has: the next one's offset. Its row lock orders the writers.
create table partitions (
  topic text not null,
  partition integer not null,
  next_offset bigint not null,
  primary key (topic, partition)
) with (fillfactor = 50);

create table log (
  topic text not null,
  partition integer not null,
  "offset" bigint not null,
  key text not null,
  event_id text not null,
  event_type text not null,
  envelope jsonb not null,
  trace_parent text not null,
  -- Of dead letters: who could not take the event, and why.
  failure jsonb,
  published_at timestamptz not null,
  requeued_at timestamptz,
  primary key (topic, partition, "offset")
);
create index log_published_at on log using brin (published_at);

-- How far each group has read.
create table consumer_groups (
  consumer_group text not null,
  topic text not null,
  partition integer not null,
  next_offset bigint not null,
  primary key (consumer_group, topic, partition)
) with (fillfactor = 50);
