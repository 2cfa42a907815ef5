-- The hand-written twin of placing an order: what somebody would write who needs nothing but this.
drop table if exists outbox, order_item, orders, product cascade;
create table product (
  id bigint primary key, slug text unique not null, name text not null, description text not null,
  price int not null, currency char(3) not null, stock bigint not null check (stock >= 0)
) with (fillfactor = 50);
insert into product
select i, 'product-' || lpad(i::text, 4, '0'), 'Product ' || i, repeat('x', 200), 1000 + i % 90 * 100, 'EUR', 10000000
from generate_series(1, 1000) i;
create table orders (
  id bigint generated always as identity primary key, code uuid not null default gen_random_uuid() unique,
  email text not null, state text not null, total int not null, address jsonb not null,
  placed_at timestamptz not null default now()
);
create table order_item (
  id bigint generated always as identity primary key, order_id bigint not null references orders,
  product_id bigint not null references product, quantity int not null, price int not null
);
create index on order_item (order_id);
create table outbox (
  id bigint generated always as identity primary key, topic text not null, key text not null, payload jsonb not null,
  created_at timestamptz not null default now(), sent_at timestamptz
);
vacuum analyze;
