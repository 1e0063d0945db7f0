-- migrate:up

-- Records that a consumer group cannot decode, and that an operator let it skip: from the first offset to the last.
-- Their agency is unknown; each is audited.
create table passed_record (
    consumer_group text not null,
    topic text not null,
    kafka_partition integer not null,
    first_offset bigint not null,
    last_offset bigint not null,
    primary key (consumer_group, topic, kafka_partition, first_offset),
    check (last_offset >= first_offset)
);

do $$
begin
    execute format('grant select, insert, update on table passed_record to %I', current_schema() || '_worker');
end $$;

-- migrate:down

drop table passed_record;
