-- migrate:up
-- muster: expand

-- The time up to which ended versions may be deleted: questions about what held before it are not answered.
create table history_purge (
    only_row boolean primary key default true check (only_row),
    before timestamptz -- null: nothing was deleted
);
insert into history_purge default values;

do $$
declare
    api text := current_schema() || '_api';
    worker text := current_schema() || '_worker';
begin
    execute format('grant select on table history_purge to %I, %I', api, worker);
    execute format('grant update on table history_purge to %I', worker);
    execute format('grant delete on table pool_history, feature_window_history, seat_history to %I', worker);
end $$;

-- Since when a seat has been as it is, even after its earlier versions are deleted; null: since it was assigned.
alter table seat add column recorded_from timestamptz;

-- Date a seat by the instant of this transaction, which lock_agencies has stored, and keep what it was until then. If
-- several changes share an instant, the first one keeps it.
drop trigger keep_seat_version on seat;
create or replace function keep_seat_version() returns trigger
language plpgsql volatile
as $$
declare
    instant timestamptz := (select latest from agency_instant where agency_id = new.agency_id);
    since timestamptz := coalesce(old.recorded_from, old.assigned_at);
begin
    if since < instant then
        insert into seat_history (
            agency_id, seat_id, subject_ref, state, reason, generation, assigned_at, activated_at, invited_until,
            trial_began_at, recorded_from, recorded_until
        )
        values (
            old.agency_id, old.seat_id, old.subject_ref, old.state, old.reason, old.generation, old.assigned_at,
            old.activated_at, old.invited_until, old.trial_began_at, since, instant
        );
        new.recorded_from := instant;
    end if;
    return new;
end $$;
create trigger keep_seat_version before update on seat for each row
when (
    (old.subject_ref, old.state, old.reason, old.activated_at, old.invited_until, old.trial_began_at)
    is distinct from (new.subject_ref, new.state, new.reason, new.activated_at, new.invited_until, new.trial_began_at)
)
execute function keep_seat_version();

-- The seats that already have versions. Row-level security is forced, and would hide every row from the owner.
alter table seat no force row level security;
alter table seat_history no force row level security;
update seat as s
set recorded_from = h.latest
from (
    select agency_id, seat_id, max(recorded_until) as latest
    from seat_history
    group by agency_id, seat_id
) as h
where s.agency_id = h.agency_id and s.seat_id = h.seat_id;
alter table seat force row level security;
alter table seat_history force row level security;

-- As before, but a change that no answer shows makes no version: whether SeatLimitReached was published, how far the
-- ends of seats' trials are published, and how long earlier trials were open.
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

create or replace function keep_feature_window_version() returns trigger
language plpgsql volatile
as $$
declare
    instant timestamptz := (select latest from agency_instant where agency_id = new.agency_id);
    answered feature_window := new;
begin
    if instant is null then
        return new;
    end if;
    if tg_op = 'UPDATE' then
        answered.seats_begun_at := old.seats_begun_at;
        answered.seats_through := old.seats_through;
        answered.trial_before := old.trial_before;
        if old.recorded_from >= instant or answered is not distinct from old then
            return new;
        end if;
        insert into feature_window_history select instant, old.*;
    end if;
    new.recorded_from := instant;
    return new;
end $$;

-- migrate:down

create or replace function keep_feature_window_version() returns trigger
language plpgsql volatile
as $$
declare
    instant timestamptz := (select latest from agency_instant where agency_id = new.agency_id);
begin
    if instant is null then
        return new;
    end if;
    if tg_op = 'UPDATE' then
        if old.recorded_from >= instant then
            return new;
        end if;
        insert into feature_window_history select instant, old.*;
    end if;
    new.recorded_from := instant;
    return new;
end $$;

create or replace function keep_pool_version() returns trigger
language plpgsql volatile
as $$
declare
    instant timestamptz := (select latest from agency_instant where agency_id = new.agency_id);
begin
    if instant is null then
        return new;
    end if;
    if tg_op = 'UPDATE' then
        if old.recorded_from >= instant then
            return new;
        end if;
        insert into pool_history select instant, old.*;
    end if;
    new.recorded_from := instant;
    return new;
end $$;

drop trigger keep_seat_version on seat;
create or replace function keep_seat_version() returns trigger
language plpgsql volatile
as $$
begin
    insert into seat_history (
        agency_id, seat_id, subject_ref, state, reason, generation, assigned_at, activated_at, invited_until,
        trial_began_at, recorded_from, recorded_until
    )
    select
        old.agency_id, old.seat_id, old.subject_ref, old.state, old.reason, old.generation, old.assigned_at,
        old.activated_at, old.invited_until, old.trial_began_at, coalesce(h.latest, old.assigned_at), i.latest
    from agency_instant as i
    cross join lateral (
        select max(recorded_until) as latest
        from seat_history
        where agency_id = old.agency_id and seat_id = old.seat_id
    ) as h
    where i.agency_id = old.agency_id and coalesce(h.latest, old.assigned_at) < i.latest;
    return null;
end $$;
create trigger keep_seat_version after update on seat for each row
when (
    (old.subject_ref, old.state, old.reason, old.activated_at, old.invited_until, old.trial_began_at)
    is distinct from (new.subject_ref, new.state, new.reason, new.activated_at, new.invited_until, new.trial_began_at)
)
execute function keep_seat_version();
alter table seat drop column recorded_from;
do $$
declare
    worker text := current_schema() || '_worker';
begin
    execute format('revoke delete on table pool_history, feature_window_history, seat_history from %I', worker);
end $$;
drop table history_purge;
