-- Secrets are encrypted. The one before is used until previous_until.
create table webhook_subscriptions (
  subscription_id text primary key,
  owner_id text not null,
  -- Of an administrator: hears of everybody's orders.
  hears_all boolean not null,
  url text not null,
  event_types text[] not null,
  status text not null,
  secret text not null,
  previous_secret text,
  previous_until timestamptz,
  -- Deliveries that were given up since the last one that arrived.
  given_up integer not null default 0,
  -- Version of the aggregate: of the last event about it.
  version integer not null default 0,
  created_at timestamptz not null
);
create index webhook_subscriptions_owner on webhook_subscriptions (owner_id, subscription_id);
create index webhook_subscriptions_types on webhook_subscriptions using gin (event_types);

-- What is owed. The id is derived from subscription and event: the same event twice is one row.
create table webhook_deliveries (
  delivery_id text primary key,
  position bigint generated always as identity,
  subscription_id text not null,
  aggregate_id text not null,
  event_id text not null,
  event_type text not null,
  body text not null,
  status text not null,
  attempts integer not null,
  created_at timestamptz not null,
  delivered_at timestamptz
);
create index webhook_deliveries_subscription on webhook_deliveries (subscription_id, position desc);
create index webhook_deliveries_owed on webhook_deliveries (subscription_id, aggregate_id, position) where status = 'PENDING';
create index webhook_deliveries_created_at on webhook_deliveries (created_at);

-- What came of each try.
create table webhook_delivery_attempts (
  attempt_id bigint generated always as identity primary key,
  delivery_id text not null,
  attempted_at timestamptz not null,
  duration_ms integer not null,
  request_headers jsonb not null,
  response_status integer,
  response_body text,
  error text
);
create index webhook_delivery_attempts_delivery on webhook_delivery_attempts (delivery_id, attempt_id desc);
create index webhook_delivery_attempts_attempted_at on webhook_delivery_attempts (attempted_at);

-- When to look again at what is owed to a subscription about an aggregate; a row only while something is.
create table webhook_delays (
  group_id text not null,
  key text not null,
  due_at timestamptz not null,
  -- Who is at work on it, until due_at.
  holder text,
  -- How often something was put here; tells whether something came while somebody was at work.
  arrivals integer not null,
  primary key (group_id, key)
);
create index webhook_delays_due on webhook_delays (group_id, due_at);
