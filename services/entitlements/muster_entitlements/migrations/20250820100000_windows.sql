-- migrate:up
-- muster: expand

alter table pool add column time_zone text; -- the agency's, as the IANA database names it; null for UTC

-- What a window starts with, and what becomes of it. A window that is anchored on seats lasts as long as the term; within
-- it each seat has a trial of `seat_days` from its first activation on.
alter table feature_window
add column anchor text not null default 'agency',
add column seat_days integer check (seat_days > 0),
add column ends_soon_days integer [] not null default '{14,7,1}',
add column grace_days integer check (grace_days > 0), -- access stays as it was for this long after a trial
add column extended boolean not null default false,
add column ended_early boolean not null default false,
add column revision integer not null default 1, -- grows whenever it is moved
-- How far the ends of the seats' trials are published: those of the trials begun before, and of these seats.
add column seats_begun_at timestamptz,
add column seats_through text collate "C" not null default '';

-- When this seat's trial began, whoever held it then, or an earlier trial of its holder; null before the first
-- activation, and for seats from before this column, where the activation tells.
alter table seat add column trial_began_at timestamptz;

-- When a person's trial began who has since lost the seat to someone else.
create table seat_trial (
    agency_id text collate "C" not null,
    subject_ref text collate "C" not null,
    began_at timestamptz not null,
    primary key (agency_id, subject_ref)
);
select protect('seat_trial', api => 'select, insert', worker => 'select, insert');
do $$
begin
    execute format('grant update on feature_window to %I', current_schema() || '_api');
end $$;

-- migrate:down

do $$
begin
    execute format('revoke update on feature_window from %I', current_schema() || '_api');
end $$;
drop table seat_trial;
alter table seat drop column trial_began_at;
alter table feature_window
drop column seats_through, drop column seats_begun_at, drop column revision, drop column ended_early,
drop column extended,
drop column grace_days, drop column ends_soon_days, drop column seat_days, drop column anchor;
alter table pool drop column time_zone;
