-- migrate:up
-- muster: expand

-- The server on which each lane of the relay last compared its topics with this database, named by when it was started.
create table topic_comparison (
    lane text primary key,
    server_started_at timestamptz not null
);

-- Whether the facts may lack commits: deadlines are held, or a lane has not compared its topics on this server. After a
-- failover or a physical restore, the rows name the lost server. A lane without a row does not count: the earlier
-- release's relay compares, but stores none.
create function facts_in_doubt() returns boolean
language sql stable as $$
    select exists (
        select from epoch where deadlines_held_since is not null
        union all
        select from topic_comparison where server_started_at <> pg_postmaster_start_time()
    )
$$;

do $$
begin
    execute format('grant select on table topic_comparison to %I', current_schema() || '_api');
    execute format('grant select, insert, update on table topic_comparison to %I', current_schema() || '_worker');
end $$;

-- migrate:down

drop function facts_in_doubt();
drop table topic_comparison;
