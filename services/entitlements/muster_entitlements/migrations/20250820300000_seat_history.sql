-- migrate:up
-- muster: expand

alter table seat add column reason text; -- why it is suspended or revoked: a public keyword

-- What a seat was before each of its changes, within [recorded_from, recorded_until), without its holder's address and
-- name. A new seat has no row here, so an import writes none.
create table seat_history (
    agency_id text collate "C" not null,
    seat_id text collate "C" not null,
    subject_ref text collate "C" not null,
    state text not null,
    reason text,
    generation integer not null,
    assigned_at timestamptz not null,
    activated_at timestamptz,
    invited_until timestamptz,
    trial_began_at timestamptz,
    recorded_from timestamptz not null,
    recorded_until timestamptz not null,
    primary key (agency_id, seat_id, recorded_until),
    constraint seat_history_half_open check (recorded_from < recorded_until)
);
create index seat_history_of_subject on seat_history (agency_id, subject_ref, recorded_until);
select protect('seat_history', api => 'select, insert', worker => 'select, insert');

-- Keep what a seat was until the instant of this transaction, which lock_agencies has stored. If several changes share
-- an instant, the first one keeps it.
create function keep_seat_version() returns trigger
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

-- migrate:down

drop trigger keep_seat_version on seat;
drop function keep_seat_version();
drop table seat_history;
alter table seat drop column reason;
