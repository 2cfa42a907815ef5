-- The same read model in ClickHouse, where there is one: who builds it anew at the moment.
insert into projections (name) values ('daily_revenue_clickhouse');
