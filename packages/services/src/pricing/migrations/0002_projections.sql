-- The read models of this context, and who builds one anew at the moment (infra/projection).
create table projections (
  name text primary key,
  building text,
  lease_until timestamptz
);
insert into projections (name) values ('flash_sale_price_map');

-- What the events of sales tell, from the sales themselves: what the copy in Redis is compared with.
create view flash_sale_price_map as
select product_id, sale_id, price_minor, currency, starts_at, ends_at,
  case when canceled_at is not null then 'CANCELED' when end_told_at is not null then 'ENDED'
    when start_told_at is not null then 'RUNNING' else 'SCHEDULED' end as state,
  version
from flash_sales;
