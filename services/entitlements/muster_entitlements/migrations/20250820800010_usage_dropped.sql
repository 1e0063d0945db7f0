-- migrate:up
-- muster: expand

-- `today` comes from the caller: a compromised service could name a day in another century, and have all counted use
-- dropped, and with it the record of which events were counted. Now nothing is dropped before it has also expired by
-- the server's own clock, give or take a day. A sandbox whose clock is ahead drops it later.
create or replace function keep_usage_partitions(parent text, today date) returns void
language plpgsql volatile security definer
as $$
declare
    column_name text;
    unit text;
    step interval;
    ahead interval;
    past interval;
    first timestamp;
    partition text;
    present date := least(today, (clock_timestamp() at time zone 'UTC')::date + 1);
begin
    select v.column_name, v.unit, v.step, v.ahead, v.past
    into strict column_name, unit, step, ahead, past
    from (values
        ('usage_seen', 'day', 'day', interval '1 day', interval '3 days', interval '45 days'),
        ('usage_reply', 'day', 'day', interval '1 day', interval '3 days', interval '2 days'),
        ('usage_sum', 'starts_at', 'month', interval '1 month', interval '2 months', interval '25 months')
    ) as v (parent, column_name, unit, step, ahead, past)
    where v.parent = keep_usage_partitions.parent;
    perform pg_advisory_xact_lock(hashtextextended(current_schema() || '/keep_usage_partitions', 0));
    for partition in
        select c.relname
        from pg_inherits as i
        join pg_class as c on c.oid = i.inhrelid
        where
            i.inhparent = parent::regclass
            and c.relname < parent || to_char(present - past - step, '_YYYYMMDD')
            and c.relname ~ '_\d{8}$'
    loop
        execute format('drop table %I', partition);
    end loop;
    execute format('delete from %I where %I < %L', parent || '_default', column_name, present - past || '+00');
    for first in
        select generate_series(start - step, start + ahead, step)
        from date_trunc(unit, today::timestamp) as start
    loop
        partition := parent || to_char(first, '_YYYYMMDD');
        continue when to_regclass(partition) is not null;
        execute format('create table %I (like %I including all) with (fillfactor = 70)', partition, parent);
        execute format(
            'with moved as (delete from %1$I where %2$I >= %3$L and %2$I < %4$L returning *) '
            'insert into %5$I select * from moved',
            parent || '_default', column_name, first || '+00', first + step || '+00', partition);
        perform protect(partition::regclass, api => '', worker => '');
        execute format(
            'alter table %I attach partition %I for values from (%L) to (%L)',
            parent, partition, first || '+00', first + step || '+00');
    end loop;
end $$;

do $$
begin
    -- Replacing a function drops its setting.
    execute format('alter function keep_usage_partitions(text, date) set search_path = %I, pg_temp', current_schema());
end $$;

-- migrate:down

create or replace function keep_usage_partitions(parent text, today date) returns void
language plpgsql volatile security definer
as $$
declare
    column_name text;
    unit text;
    step interval;
    ahead interval;
    past interval;
    first timestamp;
    partition text;
begin
    select v.column_name, v.unit, v.step, v.ahead, v.past
    into strict column_name, unit, step, ahead, past
    from (values
        ('usage_seen', 'day', 'day', interval '1 day', interval '3 days', interval '45 days'),
        ('usage_reply', 'day', 'day', interval '1 day', interval '3 days', interval '2 days'),
        ('usage_sum', 'starts_at', 'month', interval '1 month', interval '2 months', interval '25 months')
    ) as v (parent, column_name, unit, step, ahead, past)
    where v.parent = keep_usage_partitions.parent;
    perform pg_advisory_xact_lock(hashtextextended(current_schema() || '/keep_usage_partitions', 0));
    for partition in
        select c.relname
        from pg_inherits as i
        join pg_class as c on c.oid = i.inhrelid
        where
            i.inhparent = parent::regclass
            and c.relname < parent || to_char(today - past - step, '_YYYYMMDD')
            and c.relname ~ '_\d{8}$'
    loop
        execute format('drop table %I', partition);
    end loop;
    execute format('delete from %I where %I < %L', parent || '_default', column_name, today - past || '+00');
    for first in
        select generate_series(start - step, start + ahead, step)
        from date_trunc(unit, today::timestamp) as start
    loop
        partition := parent || to_char(first, '_YYYYMMDD');
        continue when to_regclass(partition) is not null;
        execute format('create table %I (like %I including all) with (fillfactor = 70)', partition, parent);
        execute format(
            'with moved as (delete from %1$I where %2$I >= %3$L and %2$I < %4$L returning *) '
            'insert into %5$I select * from moved',
            parent || '_default', column_name, first || '+00', first + step || '+00', partition);
        perform protect(partition::regclass, api => '', worker => '');
        execute format(
            'alter table %I attach partition %I for values from (%L) to (%L)',
            parent, partition, first || '+00', first + step || '+00');
    end loop;
end $$;

do $$
begin
    execute format('alter function keep_usage_partitions(text, date) set search_path = %I, pg_temp', current_schema());
end $$;
