-- What was decided about attempts to pay, and what the next decisions look back at. Devices stand here as digests.
create table assessments (
  assessment_id text primary key,
  -- The order they came in. Lists and the expiry go by it and not by time: no index but the user's and the device's own
  -- is in order of time, so the planner has no other way to somebody's newest ones.
  position bigint generated always as identity,
  order_id text not null,
  user_id text not null,
  device text,
  amount_minor bigint not null,
  currency text not null,
  region text not null,
  units integer not null,
  lines integer not null,
  score smallint not null check (score between 0 and 100),
  decision text not null check (decision in ('allow', 'review', 'block')),
  reasons jsonb not null,
  decided_at timestamptz not null
);
-- Each answers one of the questions of an assessment from the index alone.
create index assessments_user on assessments (user_id, decided_at) include (region, device);
create index assessments_usual on assessments (user_id, currency, decided_at) include (amount_minor)
  where decision = 'allow';
create index assessments_device on assessments (device, decided_at) where device is not null;
create index assessments_device_user on assessments (device, user_id, decision) where device is not null;
-- Lists for operators, and the end of what is old.
create unique index assessments_position on assessments (position);
create index assessments_decision on assessments (decision, position);
create index assessments_flagged_order on assessments (order_id) where decision <> 'allow';
