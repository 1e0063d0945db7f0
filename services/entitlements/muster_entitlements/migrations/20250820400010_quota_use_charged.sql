-- migrate:up
-- muster: expand

-- Of the uses, those for which the quota pays. Rows from before are told again with their next threshold.
alter table quota_use add column charged bigint not null default 0;

-- migrate:down

alter table quota_use drop column charged;
