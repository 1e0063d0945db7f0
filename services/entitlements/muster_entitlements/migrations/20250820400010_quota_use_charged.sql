-- migrate:up
-- muster: expand

-- The part of the uses that the quota pays for. Older rows are published again with their next threshold.
alter table quota_use add column charged bigint not null default 0;

-- migrate:down

alter table quota_use drop column charged;
