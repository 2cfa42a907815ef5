create table notifications (
  notification_id text primary key,
  user_id text not null,
  kind text not null,
  order_id text,
  text text not null,
  created_at timestamptz not null,
  read_at timestamptz
);
create index notifications_user on notifications (user_id, created_at desc, notification_id desc);
