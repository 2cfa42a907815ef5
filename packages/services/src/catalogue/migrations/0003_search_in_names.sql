-- Searches look at a bounded number of products; those whose name has the words are among them.
create index products_name_search on products using gin (to_tsvector('simple'::regconfig, name));
