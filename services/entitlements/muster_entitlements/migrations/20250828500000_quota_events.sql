-- migrate:up
-- muster: expand

-- The events that report which thresholds of a quota were crossed in a period, and by whom, or that it was exceeded.
-- They are shown until the period ends, which may be later than its end here: a trial can be extended.
create table quota_event (
    agency_id text collate "C" not null,
    feature text collate "C" not null,
    subject_ref text collate "C" not null, -- empty: the whole agency
    starts_at timestamptz not null, -- of the period
    ends_at timestamptz not null, -- exclusive
    event_id text collate "C" not null,
    type text not null,
    time timestamptz not null,
    primary key (agency_id, feature, subject_ref, starts_at, event_id)
);
create index quota_event_by_end on quota_event (ends_at);
select protect('quota_event', api => 'select, insert', worker => 'select, insert');
do $$
begin
    execute format('grant delete on table quota_event to %I', current_schema() || '_worker');
end $$;

create function keep_quota_events() returns trigger
language plpgsql volatile
as $$
begin
    insert into quota_event (agency_id, feature, subject_ref, starts_at, ends_at, event_id, type, time)
    select
        new.agency_id,
        f.fact ->> 'feature',
        coalesce(f.fact ->> 'subject_ref', ''),
        (f.fact ->> 'period_starts_at')::timestamptz,
        (f.fact ->> 'period_ends_at')::timestamptz,
        format(
            '%s/%s/%s/%s',
            new.topic, new.agency_id, new.epoch, lpad((new.first_sequence + p.place - 1)::text, 20, '0')
        ),
        new.type,
        new.time
    from unnest(new.payloads) with ordinality as p (payload, place)
    cross join lateral (select convert_from(p.payload, 'UTF8')::json as fact) as f
    where (f.fact ->> 'period_ends_at')::timestamptz > new.recorded_at -- late use is not shown
    on conflict do nothing;
    return null;
end $$;
create trigger keep_quota_events after insert on outbox for each row
when (
    new.type in (
        'muster.entitlements.QuotaThresholdCrossed.v1',
        'muster.entitlements.AgencyQuotaThresholdCrossed.v1',
        'muster.entitlements.QuotaExceeded.v1'
    )
)
execute function keep_quota_events();

-- The events behind quota grants, by the grants' IDs.
create trigger keep_quota_grant_events after insert on outbox for each row
when (new.type = 'muster.entitlements.QuotaGranted.v1')
execute function keep_fact_events();

-- migrate:down

drop trigger keep_quota_grant_events on outbox;
drop trigger keep_quota_events on outbox;
drop function keep_quota_events();
drop table quota_event;
