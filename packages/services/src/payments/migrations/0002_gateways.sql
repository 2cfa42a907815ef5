-- Which gateway an attempt is at; before there was only the one over REST.
alter table payments
  add column gateway text not null default 'rest',
  add column refunding_minor bigint not null default 0 check (refunding_minor >= 0),
  add column refunded_minor bigint not null default 0 check (refunded_minor >= 0),
  -- How often somebody set out to have the money held: who is not the only one cannot be certain about a gateway alone.
  add column asked integer not null default 1,
  -- When the reconciler looks at it next, as long as it is open, and how often it did.
  add column ask_again_at timestamptz,
  add column asked_again integer not null default 0,
  add check (refunding_minor + refunded_minor <= amount_minor);
alter table payments alter column gateway drop default;
update payments set ask_again_at = updated_at where status = 'INITIATED';
create index payments_open on payments (ask_again_at) where status = 'INITIATED';
create index payments_held on payments (created_at) where status = 'AUTHORISED';

alter table refunds
  add column order_id text not null,
  add column reason text not null,
  add column refusal text,
  add column updated_at timestamptz not null,
  add column ask_again_at timestamptz not null,
  add column asked_again integer not null default 0,
  add check (status in ('REQUESTED', 'REFUNDED', 'REFUSED'));
create index refunds_attempt on refunds (attempt_id);
create index refunds_open on refunds (ask_again_at) where status = 'REQUESTED';

-- A booking is written whole, by one statement, and sums to zero in each currency.
create function booking_sums_to_zero() returns trigger language plpgsql as $$ begin
  if exists (select from booked group by booking_id, currency having sum(amount_minor) <> 0) then
    raise exception 'a booking does not sum to zero' using errcode = 'check_violation'; end if; return null; end $$;
create trigger ledger_sums_to_zero after insert on ledger referencing new table as booked
  for each statement execute function booking_sums_to_zero();
