-- migrate:up
-- muster: expand

-- The topic's ID when the offset was stored: one that was made again has another, and its offsets begin at 0. Null
-- where the offset is older than this column.
alter table usage_offset add column topic_id text;

-- The records of the topic as it was before keep their rows under another name.
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
