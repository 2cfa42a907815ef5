create table warehouses (
  warehouse_id text primary key,
  region text not null
);
insert into warehouses (warehouse_id, region) values ('MAIN', 'us');

-- Half-empty pages, so that the hot rows are updated in place (HOT) and no index grows with them.
create table inventory_stock (
  product_id text not null,
  warehouse_id text not null references warehouses,
  on_hand integer not null check (on_hand >= 0),
  reserved integer not null check (reserved >= 0),
  version integer not null,
  primary key (product_id, warehouse_id),
  check (reserved <= on_hand)
) with (fillfactor = 50);

create table inventory_adjustment (
  adjustment_id text primary key,
  product_id text not null,
  warehouse_id text not null,
  delta integer not null,
  reason text not null,
  adjusted_by text not null,
  on_hand integer not null,
  adjusted_at timestamptz not null
);
create index inventory_adjustment_product on inventory_adjustment (product_id, adjusted_at);

-- A row for good: a closed reservation is the tombstone that refuses a late step.
create table reservations (
  reservation_id text primary key,
  order_id text not null,
  warehouse_id text not null,
  status text not null check (status in ('held', 'committed', 'released', 'expired')),
  product_ids text[] not null,
  quantities integer[] not null,
  expires_at timestamptz not null,
  created_at timestamptz not null,
  closed_at timestamptz
) with (fillfactor = 80);
create index reservations_due on reservations (expires_at) where status = 'held';
