-- migrate:up transaction:false
-- muster: expand

-- The scheduler finds each agency's first deadline: without this index, it would read all that are due.
create index concurrently if not exists deadline_by_agency on deadline (agency_id, due_at) where parked_at is null;

-- migrate:down transaction:false

drop index concurrently if exists deadline_by_agency;
