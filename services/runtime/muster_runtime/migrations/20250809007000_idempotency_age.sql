-- migrate:up transaction:false

-- Replies are purged oldest first.
create index concurrently if not exists idempotency_recorded_at on idempotency (recorded_at);

-- migrate:down transaction:false

drop index concurrently if exists idempotency_recorded_at;
