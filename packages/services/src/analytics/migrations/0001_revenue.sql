-- How far each stream is: the largest time of an event that was taken in. Its row lock orders those who take events in.
create table streams (
  stream text primary key,
  newest timestamptz
) with (fillfactor = 50);
insert into streams (stream) values ('revenue');

-- A minute by the time at which money moved. What came when it was final stands beside it.
create table revenue_minutes (
  minute timestamptz not null,
  currency text not null,
  payments integer not null,
  revenue_minor bigint not null,
  refunds integer not null,
  refunds_minor bigint not null,
  corrections integer not null,
  corrected_at timestamptz,
  late_payments integer not null,
  late_revenue_minor bigint not null,
  late_refunds integer not null,
  late_refunds_minor bigint not null,
  primary key (minute, currency)
) with (fillfactor = 50);
