-- migrate:up
-- muster: expand

-- The end of the term in which a version began to wait for the next one: it comes then, and the features it lacks end.
alter table agency_catalog add column next_after timestamptz;

-- Row-level security is forced, and would hide every row from the owner.
alter table agency_catalog no force row level security;
alter table deadline no force row level security;
update agency_catalog as a
set next_after = d.due_at
from deadline as d
where d.agency_id = a.agency_id and d.kind = 'catalog-next-term' and a.next_number is not null;
alter table agency_catalog force row level security;
alter table deadline force row level security;

-- The earlier release does not know the column: once the version has come, the value must not apply to a later one.
create function forget_next_after() returns trigger
language plpgsql
as $$
begin
    new.next_after := null;
    return new;
end $$;
create trigger forget_next_after before update on agency_catalog for each row
when (new.next_number is null) execute function forget_next_after();

-- Whether a decision has set the window's start. For existing rows the revision tells, as in the earlier release.
alter table feature_window add column start_corrected boolean not null default false;
alter table feature_window_history add column start_corrected boolean not null default false;
alter table feature_window no force row level security;
alter table feature_window disable trigger keep_feature_window_version; -- no answer shows it
update feature_window set start_corrected = true where anchor = 'program' and revision > 1;
alter table feature_window enable trigger keep_feature_window_version;
alter table feature_window force row level security;

-- migrate:down

alter table feature_window_history drop column start_corrected;
alter table feature_window drop column start_corrected;
drop trigger forget_next_after on agency_catalog;
drop function forget_next_after();
alter table agency_catalog drop column next_after;
