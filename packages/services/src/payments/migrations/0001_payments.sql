-- An attempt to pay, as its events tell it; can be rebuilt from them.
create table payments (
  attempt_id text primary key,
  order_id text not null,
  user_id text not null,
  amount_minor bigint not null check (amount_minor >= 0),
  currency text not null,
  status text not null check (status in ('INITIATED', 'AUTHORISED', 'CAPTURED', 'DECLINED', 'VOIDED')),
  reason text,
  version integer not null,
  created_at timestamptz not null,
  updated_at timestamptz not null
) with (fillfactor = 70);
create index payments_order on payments (order_id);

create table refunds (
  refund_id text primary key,
  attempt_id text not null references payments,
  amount_minor bigint not null check (amount_minor > 0),
  currency text not null,
  status text not null,
  created_at timestamptz not null
);

-- Double entry: debits are positive, credits negative; the entries of one booking sum to zero.
create table ledger (
  booking_id text not null,
  line integer not null,
  attempt_id text not null,
  order_id text not null,
  account text not null,
  amount_minor bigint not null check (amount_minor <> 0),
  currency text not null,
  booked_at timestamptz not null,
  primary key (booking_id, line)
);
create index ledger_order on ledger (order_id);
