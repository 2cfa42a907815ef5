-- The read models of this context, and who builds one anew at the moment (infra/projection).
create table projections (
  name text primary key,
  building text,
  lease_until timestamptz
);
insert into projections (name) values ('inventory_snapshot'), ('inventory_snapshot_cassandra');
