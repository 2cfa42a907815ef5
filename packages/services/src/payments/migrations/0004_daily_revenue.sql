-- The read models of this context, and who builds one anew at the moment (infra/projection).
create table projections (
  name text primary key,
  building text,
  lease_until timestamptz
);
insert into projections (name) values ('daily_revenue');

-- A row per payment (entry '') and per refund; days are sums of these, so nothing is ever counted up. The region is the
-- payment's: refunds are completed in nobody's name.
create table daily_revenue (
  attempt_id text not null,
  entry text not null,
  region text,
  amount_minor bigint not null,
  currency text not null,
  booked_at timestamptz,
  version integer not null,
  primary key (attempt_id, entry)
) with (fillfactor = 90);
create index daily_revenue_booked on daily_revenue (booked_at) where booked_at is not null;
