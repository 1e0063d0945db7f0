-- migrate:up
-- muster: expand

-- The events behind facts: of an enrollment, a term, a window, a grant, or a version of the catalog, by its ID.
create table fact_event (
    agency_id text collate "C" not null,
    subject text collate "C" not null,
    event_id text collate "C" not null,
    type text not null,
    time timestamptz not null,
    primary key (agency_id, subject, event_id)
);
select protect('fact_event', api => 'select, insert', worker => 'select, insert');
do $$
begin
    execute format(
        'create policy everyone_reads_of_the_program on fact_event for select to %I using (agency_id = ''*'')',
        current_schema() || '_api');
end $$;

-- Record which event reports what became of a window, a grant, or the catalog. Its ID has the sequence it gets here.
create function keep_fact_events() returns trigger
language plpgsql volatile
as $$
begin
    insert into fact_event (agency_id, subject, event_id, type, time)
    select
        new.agency_id,
        coalesce(f.fact ->> 'window_id', f.fact ->> 'grant_id', f.fact ->> 'number'),
        format(
            '%s/%s/%s/%s',
            new.topic, new.agency_id, new.epoch, lpad((new.first_sequence + p.place - 1)::text, 20, '0')
        ),
        new.type,
        new.time
    from unnest(new.payloads) with ordinality as p (payload, place)
    cross join lateral (select convert_from(p.payload, 'UTF8')::json as fact) as f
    on conflict do nothing;
    return null;
end $$;
create trigger keep_fact_events after insert on outbox for each row
when (
    new.type in (
        'muster.entitlements.FeatureCatalogPublished.v1',
        'muster.entitlements.FeatureWindowOpened.v1',
        'muster.entitlements.FeatureWindowExtended.v1',
        'muster.entitlements.FeatureWindowChanged.v1',
        'muster.entitlements.FeatureAccessChanged.v1',
        'muster.entitlements.TrialExpired.v1',
        'muster.entitlements.EntitlementGranted.v1',
        'muster.entitlements.EntitlementRevoked.v1'
    )
)
execute function keep_fact_events();

-- migrate:down

drop trigger keep_fact_events on outbox;
drop function keep_fact_events();
drop table fact_event;
