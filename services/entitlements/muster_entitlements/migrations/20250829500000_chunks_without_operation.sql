-- migrate:up
-- muster: expand
-- muster: optional

-- Row-level security is forced, and would hide every row from the owner.
alter table deadline no force row level security;
alter table operation no force row level security;
alter table operation_chunk no force row level security;

-- A file that went on arriving after it was discarded left chunks behind, with addresses. The scheduler deletes them.
insert into deadline (kind, agency_id, subject, due_at)
select distinct 'operation-rows-forgotten', c.agency_id, c.operation_id, now()
from operation_chunk as c
where not exists (
    select from operation as o
    where o.agency_id = c.agency_id and o.operation_id = c.operation_id
)
on conflict (kind, agency_id, subject) do nothing;

alter table deadline force row level security;
alter table operation force row level security;
alter table operation_chunk force row level security;

-- migrate:down

-- The deadlines delete what nothing needs.
