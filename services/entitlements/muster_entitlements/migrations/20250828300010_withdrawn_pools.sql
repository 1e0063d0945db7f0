-- migrate:up transaction:false
-- muster: expand
-- muster: optional

-- The withdrawals that answers about the past need; few of a pool's versions follow one.
create index concurrently if not exists pool_history_withdrawn on pool_history (agency_id, enrollment_id)
where withdrawn_at is not null;

-- migrate:down transaction:false

drop index concurrently if exists pool_history_withdrawn;
