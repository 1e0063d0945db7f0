-- migrate:up
-- muster: expand

-- The topic's ID when the offset was stored: a recreated topic has another ID, and its offsets begin at 0. Null if the
-- offset is older than this column.
alter table usage_offset add column topic_id text;

-- Records of the topic before it was recreated keep their rows, under another name.
do $$
begin
    execute format('grant update (topic) on table usage_deferred, usage_parked to %I', current_schema() || '_worker');
end $$;

-- migrate:down

do $$
begin
    execute format('revoke update (topic) on table usage_deferred, usage_parked from %I', current_schema() || '_worker');
end $$;
alter table usage_offset drop column topic_id;
