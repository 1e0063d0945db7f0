-- migrate:up

-- The seats of one generation are those assigned between two times at which all are taken back. The seats of a
-- generation before the pool's are no longer held by anyone; they are revoked step by step.
alter table pool add column generation integer not null default 1;
alter table pool add column revoking integer not null default 0; -- seats of earlier generations that are still to be revoked
alter table pool add constraint pool_revoking_not_negative check (revoking >= 0) not valid;
-- squawk-ignore constraint-missing-not-valid
alter table pool validate constraint pool_revoking_not_negative;
alter table seat add column generation integer not null default 1;

-- An enrollment has ended, and its seats are being revoked: why, and how far along this is.
create table closing (
    agency_id text collate "C" not null,
    generation integer not null,
    enrollment_id text not null,
    reason text not null,
    seats integer not null, -- held when it began
    seat_id text collate "C" not null default '', -- the last seat checked
    correlation_id text not null,
    causation_id text,
    traceparent text,
    primary key (agency_id, generation)
);
select protect('closing', api => 'select', worker => 'select, insert, update, delete');

-- migrate:down

drop table closing;
alter table seat drop column generation;
alter table pool drop column revoking, drop column generation;
