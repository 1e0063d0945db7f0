-- migrate:up transaction:false
-- muster: expand

-- The versions that are deleted first.
create index concurrently if not exists seat_history_by_end on seat_history (recorded_until);

-- migrate:down transaction:false

drop index concurrently if exists seat_history_by_end;
