-- An order that somebody looked at and let go on is not held up again.
alter table orders add column reviewed boolean not null default false;

-- A checkout's process begins before its order is there.
alter table sagas drop constraint sagas_order_id_fkey;
alter table sagas drop constraint sagas_step_check;
alter table sagas add constraint sagas_step_check check (step in
  ('quote', 'risk', 'reserve', 'release', 'hold', 'authorise', 'confirm', 'capture', 'void', 'done'));
-- What the process needs to go on in whichever hands; the payment token in it is encrypted, and gone when it ends.
alter table sagas add column kind text not null default 'pay' check (kind in ('pay', 'checkout'));
alter table sagas add column work jsonb not null default '{}';
alter table sagas add column begun_at timestamptz;
update sagas set begun_at = updated_at;
-- Of those from before only the token is not known: what became of the payment can be found out, and no more.
update sagas s set work = jsonb_build_object(
  'principal', jsonb_build_object('userId', o.user_id, 'role', 'shopper', 'region', o.region),
  'correlationId', s.saga_id, 'traceParent', '00-00000000000000000000000000000000-0000000000000000-00',
  'paymentToken', null, 'rail', 'auto', 'reservationId', o.reservation_id)
from orders o where o.order_id = s.order_id;
alter table sagas alter column begun_at set not null;
alter table sagas alter column kind drop default;
alter table sagas alter column work drop default;
drop index sagas_order;
create index sagas_order on sagas (order_id, begun_at desc);
