-- migrate:up

-- What the probe's handler has applied: one row per event, and no event twice if the runtime keeps its promise.
create table effect (
    id bigint generated always as identity primary key,
    agency_id text not null,
    event_id text not null,
    sequence bigint not null,
    seat_id text not null
);
select protect('effect', api => 'select, insert', worker => 'select, insert');

-- migrate:down

drop table effect;
