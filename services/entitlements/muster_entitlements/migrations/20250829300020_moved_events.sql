-- migrate:up
-- muster: expand

-- A raised epoch moves the events that wait in the outbox, and so gives them other IDs.
create function move_events() returns trigger
language plpgsql volatile
as $$
begin
    with event as (
        select
            n.agency_id,
            format('%s/%s/%s/%s', n.topic, n.agency_id, o.epoch, s.sequence) as old_id,
            format('%s/%s/%s/%s', n.topic, n.agency_id, n.epoch, s.sequence) as new_id
        from new_run as n
        join old_run as o using (id)
        cross join lateral (
            select lpad((n.first_sequence + place)::text, 20, '0') as sequence
            from generate_series(0, n.events - 1) as place
        ) as s
        where n.topic in ('muster.entitlements.feature', 'muster.entitlements.catalog')
    ),

    moved_facts as (
        update fact_event as f
        set event_id = e.new_id
        from event as e
        where f.agency_id = e.agency_id and f.event_id = e.old_id
    )

    update quota_event as q
    set event_id = e.new_id
    from event as e
    where q.agency_id = e.agency_id and q.event_id = e.old_id;
    return null;
end $$;
create trigger move_events after update on outbox
referencing old table as old_run new table as new_run
for each statement execute function move_events();
do $$
begin
    execute format('grant update (event_id) on table fact_event, quota_event to %I', current_schema() || '_worker');
end $$;

-- migrate:down

do $$
begin
    execute format('revoke update (event_id) on table fact_event, quota_event from %I', current_schema() || '_worker');
end $$;
drop trigger move_events on outbox;
drop function move_events();
