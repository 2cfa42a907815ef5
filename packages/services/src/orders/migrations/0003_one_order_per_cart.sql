-- The cart that a checkout turns into an order, as it was then ("CART-1@5"): no two checkouts may do that at once. A claim
-- that led to no order, or to one that was canceled, is taken away by whoever wants the cart next.
alter table sagas add column cart text;
create unique index sagas_cart on sagas (cart) where cart is not null;
