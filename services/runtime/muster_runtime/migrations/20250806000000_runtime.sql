-- migrate:up

-- The agencies that this transaction has locked; null when none.
create function locked_agencies() returns text[]
language sql stable parallel safe
as $$ select string_to_array(nullif(current_setting('muster.locked', true), ''), ',') $$;

-- Take the transaction-scoped lock of each agency, in sorted order, and admit writes to them.
-- It must be the first statement of a writing transaction: every later statement then sees what the last holder committed.
create function lock_agencies(agencies text[]) returns void
language plpgsql volatile
as $$
declare
    sorted text[] := array(select distinct agency from unnest(agencies) as a(agency) order by agency);
    agency text;
begin
    foreach agency in array sorted loop
        if agency like '%,%' then
            raise exception 'agency % cannot be locked: a comma parts agencies', quote_literal(agency)
                using errcode = 'invalid_parameter_value';
        end if;
        perform pg_advisory_xact_lock(hashtextextended(current_schema() || '/' || agency, 0));
    end loop;
    perform set_config('muster.locked', array_to_string(sorted, ','), true);
    perform set_config('muster.agency', sorted[1], true);
end $$;

-- Force row-level security on a table with an agency, and grant what its two runtime roles may do.
-- The api role reads the tenant's rows (or, for an operator, '*': every row); the worker role reads all.
-- Both write only to agencies that the transaction has locked: a write without the lock is refused.
create function protect(target regclass, api text, worker text) returns void
language plpgsql
as $$
declare
    role_api text := current_schema() || '_api';
    role_worker text := current_schema() || '_worker';
begin
    execute format('alter table %s enable row level security', target);
    execute format('alter table %s force row level security', target);
    execute format(
        'create policy api_read on %s for select to %I using ('
        'agency_id = (select current_setting(''muster.agency'', true)) '
        'or (select current_setting(''muster.agency'', true)) = ''*'')', target, role_api);
    execute format('create policy worker_read on %s for select to %I using (true)', target, role_worker);
    execute format(
        'create policy locked_insert on %s for insert to %I, %I '
        'with check (agency_id = any ((select locked_agencies())::text[]))', target, role_api, role_worker);
    execute format(
        'create policy locked_update on %s for update to %I, %I '
        'using (true) with check (agency_id = any ((select locked_agencies())::text[]))', target, role_api, role_worker);
    execute format(
        'create policy api_delete on %s for delete to %I '
        'using (agency_id = any ((select locked_agencies())::text[]))', target, role_api);
    execute format('create policy worker_delete on %s for delete to %I using (true)', target, role_worker);
    if api <> '' then
        execute format('grant %s on table %s to %I', api, target, role_api);
    end if;
    if worker <> '' then
        execute format('grant %s on table %s to %I', worker, target, role_worker);
    end if;
end $$;

-- The last sequence assigned in each stream of this service.
create table stream (
    topic text not null,
    agency_id text not null,
    epoch integer not null default 1,
    last_sequence bigint not null,
    primary key (topic, agency_id)
);
select protect('stream', api => 'select, insert, update', worker => 'select, insert, update');

-- Runs of events that Kafka has not yet acknowledged: one row per run, deleted once it has.
create table outbox (
    id bigint generated always as identity primary key,
    topic text not null,
    agency_id text not null,
    epoch integer not null,
    first_sequence bigint not null,
    type text not null,
    time timestamptz not null,
    correlation_id text not null,
    causation_id text,
    traceparent text,
    recorded_at timestamptz not null,
    events integer not null,
    keys text [], -- the records' keys where they are not the agency
    payloads bytea [] not null -- a null payload is a tombstone
);
alter table outbox alter column payloads set storage external;
select protect('outbox', api => 'select, insert', worker => 'select, insert, delete, maintain');

-- The last sequence that each consumer group has applied of a stream.
create table applied (
    consumer_group text not null,
    topic text not null,
    agency_id text not null,
    epoch integer not null,
    last_sequence bigint not null,
    primary key (consumer_group, topic, agency_id)
);
select protect('applied', api => 'select', worker => 'select, insert, update, delete');

-- Parked streams: one of their events could not be applied.
create table parked_stream (
    consumer_group text not null,
    topic text not null,
    agency_id text not null,
    parked_at timestamptz not null,
    reason text not null,
    primary key (consumer_group, topic, agency_id)
);
select protect('parked_stream', api => 'select', worker => 'select, insert, update, delete');

-- The raw records of a parked stream, in order: the one that failed and all that came after it.
create table parked_event (
    id bigint generated always as identity primary key,
    consumer_group text not null,
    topic text not null,
    agency_id text not null,
    kafka_partition integer not null,
    kafka_offset bigint not null,
    key bytea,
    header_names text [] not null,
    header_values bytea [] not null,
    value bytea,
    parked_at timestamptz not null,
    unique (consumer_group, topic, kafka_partition, kafka_offset)
);
select protect('parked_event', api => 'select', worker => 'select, insert, delete');

-- Work to do at a later time.
create table deadline (
    kind text not null,
    agency_id text not null,
    subject text not null,
    due_at timestamptz not null,
    primary key (kind, agency_id, subject)
);
create index deadline_due_at on deadline (due_at);
select protect('deadline', api => 'select, insert, update, delete', worker => 'select, insert, update, delete');

-- The reply to each command that carried an Idempotency-Key.
create table idempotency (
    agency_id text not null,
    route text not null,
    key text not null,
    body_sha256 bytea not null,
    status integer not null,
    headers jsonb not null,
    body bytea not null,
    recorded_at timestamptz not null,
    primary key (agency_id, key)
);
select protect('idempotency', api => 'select, insert', worker => 'select, delete');

-- Who changed what, and when; neither runtime role can change a row of it.
create table audit (
    id bigint generated always as identity primary key,
    recorded_at timestamptz not null,
    agency_id text not null,
    actor text not null,
    command text not null,
    subject text,
    reason text,
    before jsonb,
    after jsonb,
    request_id text,
    correlation_id text not null
);
create index audit_agency_id on audit (agency_id, id);
select protect('audit', api => 'select, insert', worker => 'select, insert');

-- Which process leads in each duty. This saves work; correctness never depends on it.
create table lease (
    duty text primary key,
    holder text not null,
    expires_at timestamptz not null
);

do $$
begin
    execute format('grant usage on schema %I to %I, %I', current_schema(), current_schema() || '_api', current_schema() || '_worker');
    execute format('grant select, insert, update, delete on table lease to %I', current_schema() || '_worker');
end $$;

-- migrate:down

drop table lease, audit, idempotency, deadline, parked_event, parked_stream, applied, outbox, stream;
drop function protect, lock_agencies, locked_agencies;
