-- migrate:up
-- muster: expand

-- Usage records that are read, but not counted until the lock of their agency is free: a long transaction holds it.
-- They are stored as they arrived, by the transaction that advances the offset.
create table usage_deferred (
    id bigint generated always as identity primary key,
    waits_for text collate "C" not null, -- the agency
    topic text not null,
    kafka_partition integer not null,
    kafka_offset bigint not null,
    key bytea,
    header_names text [] not null,
    header_values bytea [] not null,
    value bytea,
    deferred_at timestamptz not null,
    unique (topic, kafka_partition, kafka_offset)
);
create index usage_deferred_in_order on usage_deferred (waits_for, id);
do $$
begin
    execute format('grant select, insert, delete on table usage_deferred to %I', current_schema() || '_worker');
end $$;

-- migrate:down

drop table usage_deferred;
