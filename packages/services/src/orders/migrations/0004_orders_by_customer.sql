-- The read models of this context, and who builds one anew at the moment (infra/projection).
create table projections (
  name text primary key,
  building text,
  lease_until timestamptz
);
insert into projections (name) values ('orders_by_customer');

-- A customer's orders as events tell them. What only the first event knows is null until it has come.
create table orders_by_customer (
  user_id text not null,
  order_id text not null,
  region text,
  items integer,
  total_minor bigint,
  currency text,
  placed_at timestamptz,
  status text not null,
  updated_at timestamptz not null,
  version integer not null,
  primary key (user_id, order_id)
) with (fillfactor = 80);
