-- migrate:up

-- The epoch in which this service's new streams begin. An operator raises it after a restore.
create table epoch (
    only_row boolean primary key default true check (only_row),
    number integer not null default 1
);
insert into epoch default values;

-- Stored with the stream, so that a full stream is detected without counting its records.
alter table parked_stream add column records bigint not null default 0;
update parked_stream as s
set records = (
    select count(*)
    from parked_event as e
    where
        e.consumer_group = s.consumer_group and e.topic = s.topic
        and e.agency_id = s.agency_id
);

do $$
begin
    execute format('grant select on table epoch to %I', current_schema() || '_api');
    execute format('grant select, update on table epoch to %I', current_schema() || '_worker');
    -- A process checks whether its schema is up to date, and reports when it is not.
    execute format('grant select on table schema_migrations to %I', current_schema() || '_worker');
end $$;

-- migrate:down

do $$
begin
    execute format('revoke select on table schema_migrations from %I', current_schema() || '_worker');
end $$;
alter table parked_stream drop column records;
drop table epoch;
