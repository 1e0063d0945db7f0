-- migrate:up
-- muster: expand

-- Block all who read or write a table of counted use until the transaction that creates its partitions ends. A write
-- that waited for a partition instead would already have chosen the default one, which refuses the row, because by then
-- the row's own partition exists. If a long read is in the way, the upkeep gives up and tries again later.
create function lock_usage(parent text) returns void
language plpgsql volatile security definer
as $$
begin
    if parent not in ('usage_seen', 'usage_sum', 'usage_reply') then
        raise invalid_parameter_value using message = format('%s is no table of counted use', parent);
    end if;
    execute format('lock table only %I in access exclusive mode', parent);
end $$;

do $$
begin
    execute format('alter function lock_usage(text) set search_path = %I, pg_temp', current_schema());
    alter function lock_usage(text) set lock_timeout = '2s';
    revoke all on function lock_usage(text) from public;
    execute format('grant execute on function lock_usage(text) to %I', current_schema() || '_worker');
end $$;

-- migrate:down

drop function lock_usage(text);
