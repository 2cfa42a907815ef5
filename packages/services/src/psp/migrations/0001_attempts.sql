-- The test gateway's own book: what it holds and took. Nothing of the shop reads it.
create table attempts (
  attempt_id text primary key,
  order_id text not null,
  amount numeric(20, 3) not null,
  currency text not null,
  status text not null check (status in ('authorised', 'captured', 'declined', 'voided')),
  reason text,
  created_at timestamptz not null,
  updated_at timestamptz not null
);
