-- migrate:up
-- muster: expand

-- The end of the term when a version began to wait for the next one: it comes then, and what it lacks ends.
alter table agency_catalog add column next_after timestamptz;

update agency_catalog as a
set next_after = d.due_at
from deadline as d
where d.agency_id = a.agency_id and d.kind = 'catalog-next-term' and a.next_number is not null;

-- migrate:down

alter table agency_catalog drop column next_after;
