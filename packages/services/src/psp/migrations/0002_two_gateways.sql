-- Two providers, each with a book of its own: what one holds, the other has never heard of. Until here there was REST only.
alter table attempts add column gateway text not null default 'rest' check (gateway in ('soap', 'rest'));
alter table attempts alter column gateway drop default;
alter table attempts drop constraint attempts_pkey;
alter table attempts add primary key (gateway, attempt_id);

create table refunds (
  gateway text not null,
  refund_id text not null,
  attempt_id text not null,
  amount numeric(20, 3) not null check (amount > 0),
  currency text not null,
  created_at timestamptz not null,
  primary key (gateway, refund_id),
  foreign key (gateway, attempt_id) references attempts (gateway, attempt_id)
);
create index refunds_attempt on refunds (gateway, attempt_id);

-- Every movement of money, as lines that sum to zero per booking: from the shopper to what is held, from there to the
-- merchant or back, and from the merchant back to the shopper.
create table ledger (
  gateway text not null,
  booking_id text not null,
  line smallint not null,
  attempt_id text not null,
  account text not null check (account in ('shopper', 'held', 'merchant')),
  amount numeric(20, 3) not null,
  currency text not null,
  booked_at timestamptz not null,
  primary key (gateway, booking_id, line),
  foreign key (gateway, attempt_id) references attempts (gateway, attempt_id)
);
create index ledger_attempt on ledger (gateway, attempt_id);

-- What was held and taken before there was a ledger.
insert into ledger (gateway, booking_id, line, attempt_id, account, amount, currency, booked_at)
select gateway, 'authorise-' || attempt_id, line, attempt_id, account, amount * sign, currency, created_at
from attempts, (values (1, 'shopper', -1), (2, 'held', 1)) as l (line, account, sign)
where status in ('authorised', 'captured');
insert into ledger (gateway, booking_id, line, attempt_id, account, amount, currency, booked_at)
select gateway, 'capture-' || attempt_id, line, attempt_id, account, amount * sign, currency, updated_at
from attempts, (values (1, 'held', -1), (2, 'merchant', 1)) as l (line, account, sign)
where status = 'captured';
