create table flash_sales (
  sale_id text primary key,
  product_id text not null,
  price_minor bigint not null check (price_minor > 0),
  currency text not null,
  starts_at timestamptz not null,
  ends_at timestamptz not null,
  canceled_at timestamptz,
  -- When its start was told, and its end (or that it was called off): not when they were.
  start_told_at timestamptz,
  end_told_at timestamptz,
  version integer not null,
  created_at timestamptz not null,
  check (starts_at < ends_at)
);
create index flash_sales_product on flash_sales (product_id, sale_id desc);
-- What there is still to be told of.
create index flash_sales_open on flash_sales (starts_at) where end_told_at is null;

-- The price map: the windows of the sales that are not over, a few rows, which every quote looks into.
create table flash_prices (
  product_id text not null,
  starts_at timestamptz not null,
  ends_at timestamptz not null,
  sale_id text not null unique references flash_sales,
  price_minor bigint not null,
  currency text not null,
  primary key (product_id, starts_at)
);
