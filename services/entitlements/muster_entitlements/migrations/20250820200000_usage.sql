-- migrate:up
-- muster: expand

-- What was counted, by the day (UTC) of the use: an event that arrives again on that day counts once.
create table usage_seen (
    agency_id text collate "C" not null,
    day date not null,
    event bytea not null, -- 16 bytes, hashed from the event's source and ID
    content bigint not null, -- 8 bytes, hashed from its content
    primary key (agency_id, event, day)
) partition by range (day);

-- How much was used in a period, by a person and by the whole agency.
create table usage_sum (
    agency_id text collate "C" not null,
    feature text collate "C" not null,
    subject_ref text collate "C" not null, -- empty: the whole agency
    starts_at timestamptz not null, -- of the period
    ends_at timestamptz not null, -- exclusive
    used bigint not null,
    granted bigint not null default 0, -- the part that grants paid for
    excess bigint not null default 0, -- the part above the limit
    told integer not null default 0, -- the highest threshold, in percent, that was published
    primary key (agency_id, feature, subject_ref, starts_at)
) partition by range (starts_at);

-- The replies to consumed uses, by Idempotency-Key.
create table usage_reply (
    agency_id text collate "C" not null,
    key text collate "C" not null,
    day date not null,
    request bytea not null, -- a digest
    reply bytea not null,
    primary key (agency_id, key, day)
) partition by range (day);

-- Rows that no other partition takes, until one does.
create table usage_seen_default partition of usage_seen default;
create table usage_sum_default partition of usage_sum default;
create table usage_reply_default partition of usage_reply default;

select protect('usage_seen', api => 'select, insert', worker => 'select, insert');
select protect('usage_seen_default', api => '', worker => '');
select protect('usage_sum', api => 'select, insert, update', worker => 'select, insert, update');
select protect('usage_sum_default', api => '', worker => '');
select protect('usage_reply', api => 'select, insert', worker => '');
select protect('usage_reply_default', api => '', worker => '');

-- Uses beyond the quota, for an agency or a person: amount, and how much of it is spent.
create table quota_grant (
    agency_id text collate "C" not null,
    grant_id text collate "C" not null,
    feature text collate "C" not null,
    subject_ref text collate "C" not null, -- empty: the whole agency
    amount bigint not null,
    spent bigint not null default 0,
    priority integer not null,
    starts_at timestamptz not null,
    ends_at timestamptz, -- exclusive; null for none
    granted_at timestamptz not null,
    primary key (agency_id, grant_id),
    constraint quota_grant_spent_within_amount check (spent between 0 and amount),
    constraint quota_grant_half_open check (starts_at < ends_at)
);
create index quota_grant_of_subject on quota_grant (agency_id, feature, subject_ref);
select protect('quota_grant', api => 'select, insert, update', worker => 'select, insert, update');

-- Where the usage intake resumes reading each partition: everything before the offset is counted or parked.
create table usage_offset (
    topic text not null,
    kafka_partition integer not null,
    next_offset bigint not null,
    primary key (topic, kafka_partition)
);

-- Records that could not be counted. They may name any agency, or none: only operators see them.
create table usage_parked (
    id bigint generated always as identity primary key,
    topic text not null,
    kafka_partition integer not null,
    kafka_offset bigint not null,
    key bytea,
    header_names text [] not null,
    header_values bytea [] not null,
    value bytea,
    reason text not null,
    parked_at timestamptz not null,
    unique (topic, kafka_partition, kafka_offset)
);

-- Create the partitions of a table that the days around `today` need, and drop those that have expired: of counted
-- events after 45 days, when every period with such a day is closed; of the sums after 25 months; and of the replies
-- when no request can ask for them any longer. It runs as the owner, and is all that the worker role can have created
-- or dropped. Rows that arrived before their partition move to it. It locks like a writer: the table, then partitions.
create function keep_usage_partitions(parent text, today date) returns void
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
declare
    target text;
begin
    -- Temporary tables come last: a caller's temporary table must not stand in for one of these.
    execute format('alter function keep_usage_partitions(text, date) set search_path = %I, pg_temp', current_schema());
    revoke all on function keep_usage_partitions(text, date) from public;
    execute format('grant execute on function keep_usage_partitions(text, date) to %I', current_schema() || '_worker');
    execute format('grant select, insert, update on table usage_offset to %I', current_schema() || '_worker');
    execute format('grant select, insert, delete on table usage_parked to %I', current_schema() || '_worker');
    -- Row-level security is forced, so the owner, as whom the function runs, needs policies too.
    foreach target in array array['usage_seen_default', 'usage_sum_default', 'usage_reply_default'] loop
        execute format('create policy upkeep_read on %I for select to %I using (true)', target, current_user);
        execute format('create policy upkeep_delete on %I for delete to %I using (true)', target, current_user);
    end loop;
end $$;

-- migrate:down

drop function keep_usage_partitions(text, date);
drop table usage_parked, usage_offset, quota_grant, usage_reply, usage_sum, usage_seen;
