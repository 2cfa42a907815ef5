-- What was decided about attempts to pay, and what the next decisions look back at. Devices stand here as digests.
create table assessments (
  assessment_id text primary key,
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
create index assessments_decided on assessments (decided_at, assessment_id);
create index assessments_flagged on assessments (decision, decided_at, assessment_id) where decision <> 'allow';
create index assessments_order on assessments (order_id);
