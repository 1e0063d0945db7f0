-- migrate:up

-- The producer's facts: an agency's seats, numbered from 1 by a tally that is read and then written.
create table seat (
    agency_id text not null,
    seat_id text not null,
    number bigint not null,
    written_at timestamptz not null default clock_timestamp(),
    primary key (agency_id, seat_id)
);
select protect('seat', api => 'select, insert', worker => 'select');

create table tally (
    agency_id text primary key,
    seats bigint not null
);
select protect('tally', api => 'select, insert, update', worker => 'select');

-- The consumer's effects: one row per event. No constraint prevents a second one: that is the runtime's duty.
create table effect (
    id bigint generated always as identity primary key,
    agency_id text not null,
    epoch integer not null,
    sequence bigint not null,
    seat_id text not null,
    written_at timestamptz not null default clock_timestamp()
);
select protect('effect', api => 'select', worker => 'select, insert');

-- The scheduler's effects, likewise.
create table expiry (
    id bigint generated always as identity primary key,
    agency_id text not null,
    subject text not null,
    due_at timestamptz not null
);
select protect('expiry', api => 'select', worker => 'select, insert');

-- Seats that the consumer's handler refuses, and the seconds that it spends on others, until a row is deleted.
create table trouble (
    agency_id text not null,
    seat_id text not null,
    seconds double precision,
    primary key (agency_id, seat_id)
);
select protect('trouble', api => 'select', worker => 'select');

-- migrate:down

drop table trouble, expiry, effect, tally, seat;
