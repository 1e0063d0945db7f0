-- migrate:up transaction:false
-- muster: expand

-- The versions that are deleted first. Those of windows are few.
create index concurrently if not exists pool_history_by_end on pool_history (recorded_until);

-- migrate:down transaction:false

drop index concurrently if exists pool_history_by_end;
