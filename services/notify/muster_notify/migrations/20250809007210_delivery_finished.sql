-- migrate:up transaction:false

-- Deliveries are purged oldest first, and never before they are done.
create index concurrently if not exists delivery_finished_at on delivery (finished_at) where finished_at is not null;

-- migrate:down transaction:false

drop index concurrently if exists delivery_finished_at;
