-- What a checkout turns into an order: what is in a cart until the next order is taken out of it ("CART-1#4" after four
-- of them; it was the cart's version once, "CART-1@5"). No two checkouts may do that at once. A claim
-- that led to no order, or to one that was canceled, is taken away by whoever wants the cart next.
alter table sagas add column cart text;
create unique index sagas_cart on sagas (cart) where cart is not null;
