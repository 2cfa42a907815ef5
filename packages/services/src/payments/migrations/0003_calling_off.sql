-- Somebody found the gateway ignorant of the attempt and is calling it off there: what the gateway may still say to others
-- about holding the money is not to be believed, for it will not last.
alter table payments add column called_off boolean not null default false;
