create table products (
  product_id text primary key,
  sku text not null unique,
  name text not null,
  description text not null,
  category text not null,
  price_minor bigint not null check (price_minor > 0),
  currency text not null,
  version integer not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  -- 'simple': names of goods in any language; no stemming, no stop words.
  search tsvector generated always as (
    setweight(to_tsvector('simple', name), 'A') || setweight(to_tsvector('simple', category), 'B')
      || setweight(to_tsvector('simple', description), 'C')
  ) stored
);
create index products_category on products (category, product_id desc);
create index products_search on products using gin (search);

-- Slowly changing dimension, type 2: the period in which each price held; valid_to is null for the one that holds now.
create table product_price_history (
  product_id text not null references products,
  price_minor bigint not null check (price_minor > 0),
  currency text not null,
  reason text not null,
  valid_from timestamptz not null,
  valid_to timestamptz,
  revision integer not null,
  primary key (product_id, revision),
  check (valid_to >= valid_from)
);
create unique index product_price_history_current on product_price_history (product_id) where valid_to is null;
