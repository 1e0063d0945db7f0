-- migrate:up
-- muster: expand

-- A path that does not name pg_temp begins with it: a caller's temporary view stood in for what these functions read, and
-- ran its functions as their owner.
alter function oldest_snapshot_seconds() set search_path = pg_catalog, pg_temp;
alter function commit_wait_seconds() set search_path = pg_catalog, pg_temp;

-- migrate:down

alter function commit_wait_seconds() set search_path = pg_catalog;
alter function oldest_snapshot_seconds() set search_path = pg_catalog;
