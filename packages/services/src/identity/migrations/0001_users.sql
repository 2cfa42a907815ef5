create table users (
  user_id text primary key,
  email text not null unique,
  password_hash text not null,
  name text not null,
  region text not null,
  created_at timestamptz not null
);

create table roles (
  user_id text not null references users,
  role text not null check (role in ('shopper', 'admin')),
  primary key (user_id, role)
);

-- A sign-in and the refresh tokens that follow from it. Only hashes are kept. `previous` is the token before the present
-- one: if it comes again, it was stolen, and the session ends.
create table sessions (
  session_id text primary key,
  user_id text not null references users,
  refresh_hash text not null unique,
  previous_hash text unique,
  expires_at timestamptz not null,
  created_at timestamptz not null
);
create index sessions_user on sessions (user_id);
create index sessions_expires_at on sessions (expires_at);
