-- migrate:up transaction:false
-- muster: expand

-- The key of a pool's versions from the next migration on: two of them may end at one instant.
create unique index concurrently if not exists pool_history_versions on pool_history (
    agency_id, recorded_until, revision
);

-- migrate:down transaction:false

drop index concurrently if exists pool_history_versions;
