-- migrate:up
-- muster: expand

-- The ID of each topic that a consumer group reads: a recreated topic has another ID, and the stored offsets belong to
-- other records.
create table consumed_topic (
    consumer_group text not null,
    topic text not null,
    topic_id text not null,
    primary key (consumer_group, topic)
);

do $$
begin
    execute format('grant select, insert, update on table consumed_topic to %I', current_schema() || '_worker');
end $$;

-- migrate:down

drop table consumed_topic;
