-- migrate:up

-- Seats that were assigned before idleness was counted (20250807000200): that migration forgot that row-level security
-- is forced and hides every row from the owner. Without a day to count from, a seat would never be idle.
alter table seat no force row level security;
update seat
set idle_since = (coalesce(activated_at, assigned_at) at time zone 'UTC')::date
where idle_since is null and state <> 'revoked';
alter table seat force row level security;

-- migrate:down
