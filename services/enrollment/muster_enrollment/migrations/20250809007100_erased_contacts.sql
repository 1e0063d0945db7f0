-- migrate:up

-- A contact who was replaced, or whose agency left: the reference stays, for the enrollment and the acceptance.
-- Nothing reads the name or the address back.
-- squawk-ignore ban-drop-not-null
alter table contact alter column name drop not null;
-- squawk-ignore ban-drop-not-null
alter table contact alter column email drop not null;
alter table contact add column erased_at timestamptz;
-- squawk-ignore constraint-missing-not-valid
alter table contact add constraint contact_erased_whole
check ((erased_at is null) = (name is not null) and (erased_at is null) = (email is not null)) not valid;
-- squawk-ignore constraint-missing-not-valid
alter table contact validate constraint contact_erased_whole;

do $$
begin
    execute format('grant update on table contact to %I, %I', current_schema() || '_api', current_schema() || '_worker');
end $$;

-- Agencies that have already left: their contacts are erased like those of agencies that leave later, a day after.
alter table enrollment no force row level security;
alter table deadline no force row level security;
insert into deadline (kind, agency_id, subject, due_at)
select 'contact-erasure', agency_id, enrollment_id, closed_at + interval '1 day'
from (
    select distinct on (agency_id) agency_id, enrollment_id, closed_at
    from enrollment
    order by agency_id, number desc
) as latest
where closed_at is not null
on conflict do nothing;
alter table enrollment force row level security;
alter table deadline force row level security;

-- migrate:down

do $$
begin
    execute format('revoke update on table contact from %I, %I', current_schema() || '_api', current_schema() || '_worker');
end $$;
alter table contact drop constraint contact_erased_whole;
-- Row-level security is forced, and would hide every row from the owner.
alter table contact no force row level security;
update contact set name = '', email = '' where erased_at is not null;
alter table contact force row level security;
alter table contact drop column erased_at;
alter table contact alter column name set not null, alter column email set not null;
