-- migrate:up

-- When an idle seat is taken back unless it is used, as its warning said; null once it is used again. The day of the
-- warning does not determine it: a warning may come late.
alter table seat add column idle_reclaim_at timestamptz;

-- Row-level security is forced, and would hide every row from the owner.
alter table seat no force row level security;
alter table seat_policy no force row level security;
update seat as s
set idle_reclaim_at = (s.idle_warned_on + p.warning_days)::timestamp at time zone 'UTC'
from seat_policy as p
where p.agency_id = s.agency_id and s.idle_warned_on is not null;
alter table seat_policy force row level security;
alter table seat force row level security;
-- squawk-ignore ban-drop-column
alter table seat drop column idle_warned_on;

-- migrate:down

alter table seat add column idle_warned_on date;
alter table seat drop column idle_reclaim_at;
