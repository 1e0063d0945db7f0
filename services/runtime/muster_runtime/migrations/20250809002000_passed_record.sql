-- migrate:up

-- Records that a consumer group cannot decode, past which an operator has let it go: from first to last offset.
-- No agency is known of them; each is audited.
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
