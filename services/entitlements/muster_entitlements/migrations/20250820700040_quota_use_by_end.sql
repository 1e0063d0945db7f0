-- migrate:up transaction:false
-- muster: expand

-- The use that is deleted first. Events behind facts, and days of adoption, are few.
create index concurrently if not exists quota_use_by_end on quota_use (ends_at);

-- migrate:down transaction:false

drop index concurrently if exists quota_use_by_end;
