-- migrate:up

-- The processing of a file of an agency's seats. The file is received, then processed chunk by chunk; the files of an
-- agency are processed one after the other.
create table operation (
    agency_id text collate "C" not null,
    operation_id text collate "C" not null,
    kind text not null check (kind in ('import', 'suspension', 'revocation', 'transfer')),
    state text collate "C" not null check (state in ('receiving', 'running', 'completed', 'stopped')),
    dry_run boolean not null,
    on_limit text not null check (on_limit in ('stop', 'fill')),
    directory boolean not null, -- whether an import tells the restricted directory who its people are
    columns integer [], -- how many the header has, and the positions of those that are read
    actor text not null,
    correlation_id text not null,
    created_at timestamptz not null,
    place bigint, -- in the agency's queue, once the file is received
    started_at timestamptz,
    updated_at timestamptz,
    chunks integer not null default 0,
    chunks_done integer not null default 0,
    rows bigint not null default 0,
    done bigint not null default 0, -- rows that did what the file asks for
    unchanged bigint not null default 0,
    refused bigint not null default 0,
    stop_reason text,
    primary key (agency_id, operation_id)
);
create index operation_running on operation (agency_id, place) where state = 'running';
select protect('operation', api => 'select, insert, update, delete', worker => 'select, update, delete');
create sequence operation_place;

-- Whole rows of the file until they are processed; then only each row's result, without personal data.
create table operation_chunk (
    agency_id text collate "C" not null,
    operation_id text collate "C" not null,
    number integer not null,
    first_line bigint not null,
    content bytea, -- null once it is processed
    results bytea,
    primary key (agency_id, operation_id, number)
);
-- Compressing would cost more than writing, and gain little on references.
alter table operation_chunk alter column content set storage external;
alter table operation_chunk alter column results set storage external;
select protect('operation_chunk', api => 'select, insert, delete', worker => 'select, update, delete');

-- What a dry run would have changed so far, until it is completed.
create table dry_run_seat (
    agency_id text collate "C" not null,
    operation_id text collate "C" not null,
    subject_ref text collate "C" not null,
    seat_id text not null,
    state text not null, -- revoked: no seat
    primary key (agency_id, operation_id, subject_ref)
);
select protect('dry_run_seat', api => '', worker => 'select, insert, update, delete');

do $$
begin
    execute format('grant usage on sequence operation_place to %I', current_schema() || '_api');
end $$;

-- migrate:down

drop table dry_run_seat, operation_chunk, operation;
drop sequence operation_place;
