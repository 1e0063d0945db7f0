-- migrate:up transaction:false
-- muster: expand

-- The deliveries that are due, by audience. The index delivery_due is still used by the previous release.
create index concurrently if not exists delivery_due_by_audience
on delivery (channel, audience, next_attempt_at, position) where next_attempt_at is not null;

-- migrate:down transaction:false

drop index concurrently if exists delivery_due_by_audience;
