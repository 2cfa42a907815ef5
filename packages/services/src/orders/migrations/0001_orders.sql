-- An order as its events tell it; can be rebuilt from them.
create table orders (
  order_id text primary key,
  user_id text not null,
  region text not null,
  status text not null check (status in ('PENDING', 'PAID', 'FULFILLED', 'CANCELED', 'HELD')),
  items_minor bigint not null,
  discount_minor bigint not null,
  tax_minor bigint not null,
  shipping_minor bigint not null,
  total_minor bigint not null check (total_minor = items_minor - discount_minor + tax_minor + shipping_minor),
  currency text not null,
  reservation_id text not null unique,
  payment_attempt_id text,
  reservation_lost boolean not null,
  version integer not null,
  created_at timestamptz not null,
  updated_at timestamptz not null
) with (fillfactor = 70);
create index orders_user on orders (user_id, order_id desc);

create table order_items (
  order_id text not null references orders,
  line integer not null,
  product_id text not null,
  qty integer not null check (qty > 0),
  price_minor bigint not null,
  primary key (order_id, line)
);

create table order_status_history (
  order_id text not null references orders,
  version integer not null,
  status text not null,
  event text not null,
  reason text,
  occurred_at timestamptz not null,
  primary key (order_id, version)
);

-- The order process: where it stands, whose it is, and until when. Every move compares epoch and step.
create table sagas (
  saga_id text primary key,
  order_id text not null references orders,
  step text not null check (step in ('hold', 'authorise', 'confirm', 'capture', 'void', 'done')),
  attempt integer not null,
  attempt_id text not null,
  owner text not null,
  epoch integer not null,
  deadline timestamptz not null,
  outcome text,
  request jsonb not null,
  updated_at timestamptz not null
) with (fillfactor = 60);
create index sagas_overdue on sagas (deadline) where step <> 'done';
create index sagas_order on sagas (order_id);
