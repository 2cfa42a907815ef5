-- The same read model in Cassandra, where there is one: who builds it anew at the moment.
insert into projections (name) values ('orders_by_customer_cassandra');
