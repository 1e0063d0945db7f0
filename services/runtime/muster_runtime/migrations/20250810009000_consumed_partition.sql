-- migrate:up

-- Where a consumer group goes on reading each partition: everything before the offset is applied, or parked. It is kept
-- with the effects, so that a database that goes back, by a failover or a restore, has what it lost read again.
create table consumed_partition (
    consumer_group text not null,
    topic text not null,
    kafka_partition integer not null,
    next_offset bigint not null,
    primary key (consumer_group, topic, kafka_partition)
);

-- Whether a stream is parked for missing events: it goes on by itself when they come.
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
