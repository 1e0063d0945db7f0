-- migrate:up

-- A parked record's position in its stream. A record that cannot be read comes after the one before it in its
-- partition; a record from before this migration comes first, as it did.
alter table parked_event add column epoch integer not null default 0;
alter table parked_event add column sequence bigint not null default 0;

-- Whether a handler refused the record, which may be the code's fault, and not only the record's.
alter table parked_stream add column refused boolean not null default true;

do $$
begin
    -- The operators' commands, which the worker role carries out, keep their replies as well.
    execute format('grant insert on table idempotency to %I', current_schema() || '_worker');
end $$;

-- migrate:down

do $$
begin
    execute format('revoke insert on table idempotency from %I', current_schema() || '_worker');
end $$;
alter table parked_stream drop column refused;
alter table parked_event drop column sequence;
alter table parked_event drop column epoch;
