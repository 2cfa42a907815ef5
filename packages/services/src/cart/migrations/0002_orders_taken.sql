-- How many orders have been taken out of the cart: what is in it until the next one is one purchase, however often it
-- changes meanwhile.
alter table carts add column orders_taken integer not null default 0;
