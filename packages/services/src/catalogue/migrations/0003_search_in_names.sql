-- Searches look at a bounded number of products; those whose name has the words are among them.
create index products_name_search on products using gin (to_tsvector('simple'::regconfig, name)) with (fastupdate = off);
-- Nor do they read through what was written lately: there are far more searches than changes.
alter index products_search set (fastupdate = off);
