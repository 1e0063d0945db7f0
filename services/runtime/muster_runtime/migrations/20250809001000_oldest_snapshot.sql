-- migrate:up

-- How long, in seconds, the oldest snapshot that keeps deleted rows of this database has been held: by a transaction, a
-- prepared transaction, or a replication slot that nobody reads. Runs as its owner, which can be granted
-- pg_read_all_stats to see what others do; the worker learns a number and sees no query.
create function oldest_snapshot_seconds() returns double precision
language sql stable security definer set search_path = pg_catalog as $$
    select coalesce(extract(epoch from clock_timestamp() - min(since)), 0)
    from (
        select xact_start as since
        from pg_stat_activity
        where
            datname = current_database()
            and backend_type = 'client backend'
            and (backend_xmin is not null or backend_xid is not null)
        union all
        select prepared
        from pg_prepared_xacts
        where database = current_database()
        union all
        select inactive_since
        from pg_replication_slots
        where (xmin is not null or catalog_xmin is not null) and not active
    ) as held
$$;

do $$
begin
    revoke all on function oldest_snapshot_seconds() from public;
    execute format('grant execute on function oldest_snapshot_seconds() to %I', current_schema() || '_worker');
end $$;

-- migrate:down

drop function oldest_snapshot_seconds;
