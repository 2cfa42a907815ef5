create table carts (
  cart_id text primary key,
  owner_id text not null,
  guest boolean not null,
  currency text not null,
  version integer not null,
  created_at timestamptz not null,
  updated_at timestamptz not null
);
create index carts_owner on carts (owner_id);

create table cart_items (
  cart_id text not null references carts,
  product_id text not null,
  qty integer not null check (qty between 1 and 99),
  line integer not null,
  primary key (cart_id, product_id)
);
