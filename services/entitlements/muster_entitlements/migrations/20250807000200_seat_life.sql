-- migrate:up

-- The whole life of a seat. The wider constraint replaces the narrower one.
-- squawk-ignore ban-drop-constraint
alter table seat drop constraint seat_state_check;
alter table seat add constraint seat_state_known
check (state in ('reserved', 'invited', 'assigned', 'active', 'suspended', 'revoked')) not valid;
-- squawk-ignore constraint-missing-not-valid
alter table seat validate constraint seat_state_known;

alter table seat add column invited_until timestamptz; -- while it is invited
alter table seat add column idle_since date; -- the day from which idleness counts: the last use, or the assignment
alter table seat add column idle_warned_on date; -- null once it is used again

-- Who holds a seat: personal data, deleted when the seat is revoked. It is in the seat's own row: a separate table and
-- index cost an import as much as the rest of its work in Postgres.
alter table seat add column email text;
alter table seat add column name text;
update seat as s
set email = h.email, name = h.name
from holder as h
where h.agency_id = s.agency_id and h.seat_id = s.seat_id;
update seat set idle_since = (assigned_at at time zone 'UTC')::date where idle_since is null;
-- squawk-ignore ban-drop-table
drop table holder;

-- An agency's policy for its seats.
create table seat_policy (
    agency_id text collate "C" primary key,
    idle_days integer check (idle_days > 0), -- null: a seat is never idle
    warning_days integer not null check (warning_days > 0),
    invitation_days integer not null check (invitation_days > 0),
    version bigint not null
);
select protect('seat_policy', api => 'select, insert, update', worker => 'select');

-- migrate:down

drop table seat_policy;
create table holder (
    agency_id text collate "C" not null,
    seat_id text collate "C" not null,
    email text not null,
    name text,
    primary key (agency_id, seat_id)
);
select protect('holder', api => 'select, insert, delete', worker => 'select, insert, delete');
insert into holder (agency_id, seat_id, email, name)
select agency_id, seat_id, email, name from seat where email is not null;
alter table seat
drop column name, drop column email, drop column idle_warned_on, drop column idle_since, drop column invited_until;
alter table seat drop constraint seat_state_known;
alter table seat add constraint seat_state_check check (state in ('assigned', 'active', 'revoked')) not valid;
