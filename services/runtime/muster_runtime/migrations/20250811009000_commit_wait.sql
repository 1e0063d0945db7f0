-- migrate:up

-- How long a commit on this server has waited for its synchronous standby, in seconds; 0 while none waits. Runs as its
-- owner, which can be granted pg_read_all_stats to see what others do; the worker learns a number and sees no query.
create function commit_wait_seconds() returns double precision
language sql stable security definer set search_path = pg_catalog as $$
    select coalesce(extract(epoch from clock_timestamp() - min(state_change)), 0)
    from pg_stat_activity
    where wait_event_type = 'IPC' and wait_event = 'SyncRep'
$$;

do $$
begin
    revoke all on function commit_wait_seconds() from public;
    execute format('grant execute on function commit_wait_seconds() to %I', current_schema() || '_worker');
end $$;

-- migrate:down

drop function commit_wait_seconds;
