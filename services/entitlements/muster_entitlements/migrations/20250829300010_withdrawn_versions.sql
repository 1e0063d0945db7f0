-- migrate:up
-- muster: expand

-- squawk-ignore ban-drop-constraint
alter table pool_history drop constraint pool_history_pkey;
alter table pool_history add constraint pool_history_versions primary key using index pool_history_versions;

-- As before, but a withdrawn version is also kept if the next enrollment follows at the same instant. It lasted no time,
-- so no answer shows it, but its withdrawal counts from its own instant on, which may be much earlier.
create or replace function keep_pool_version() returns trigger
language plpgsql volatile
as $$
declare
    instant timestamptz := (select latest from agency_instant where agency_id = new.agency_id);
    answered pool := new;
begin
    if instant is null then
        return new;
    end if;
    if tg_op = 'UPDATE' then
        answered.limit_met := old.limit_met;
        if answered is not distinct from old then
            return new;
        end if;
        if old.recorded_from >= instant and (old.withdrawn_at is null or new.enrollment_id = old.enrollment_id) then
            return new;
        end if;
        -- Revoked seats end a version, too, and do not raise its revision: then the withdrawal is kept already.
        insert into pool_history select instant, old.*
        on conflict (agency_id, recorded_until, revision) do nothing;
    end if;
    new.recorded_from := instant;
    return new;
end $$;

-- migrate:down

create or replace function keep_pool_version() returns trigger
language plpgsql volatile
as $$
declare
    instant timestamptz := (select latest from agency_instant where agency_id = new.agency_id);
    answered pool := new;
begin
    if instant is null then
        return new;
    end if;
    if tg_op = 'UPDATE' then
        answered.limit_met := old.limit_met;
        if old.recorded_from >= instant or answered is not distinct from old then
            return new;
        end if;
        insert into pool_history select instant, old.*;
    end if;
    new.recorded_from := instant;
    return new;
end $$;

-- Row-level security is forced, and would hide every row from the owner.
alter table pool_history no force row level security;
delete from pool_history where recorded_from = recorded_until;
alter table pool_history force row level security;
alter table pool_history drop constraint pool_history_versions;
alter table pool_history add primary key (agency_id, recorded_until);
create unique index pool_history_versions on pool_history (agency_id, recorded_until, revision);
