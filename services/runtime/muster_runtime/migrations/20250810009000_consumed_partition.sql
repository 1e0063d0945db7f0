-- migrate:up

-- Where a consumer group resumes reading each partition: everything before the offset is applied or parked. It is
-- stored with the effects, so that when a failover or a restore sets the database back, what it lost is read again.
create table consumed_partition (
    consumer_group text not null,
    topic text not null,
    kafka_partition integer not null,
    next_offset bigint not null,
    primary key (consumer_group, topic, kafka_partition)
);

-- Whether a stream is parked for missing events: it resumes by itself when they arrive.
alter table parked_stream add column gap boolean not null default false;

do $$
begin
    execute format(
        'grant select, insert, update, delete on table consumed_partition to %I', current_schema() || '_worker'
    );
end $$;

-- migrate:down

alter table parked_stream drop column gap;
drop table consumed_partition;
