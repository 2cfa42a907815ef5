-- Messages of devices that were applied to the stock, by what the device calls them: one that comes again counts once. In
-- the same transaction as the adjustment; kept longer than any broker keeps a message.
create table device_messages (
  sku text not null,
  device_id text not null,
  message_id text not null,
  delta integer not null,
  received_at timestamptz not null,
  primary key (sku, device_id, message_id)
);
create index device_messages_received on device_messages (received_at);
