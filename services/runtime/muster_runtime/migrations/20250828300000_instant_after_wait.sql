-- migrate:up
-- muster: expand

-- As before; but if `moving`, `instant` is of a clock that went on during the wait for the locks. What others read of
-- the agency meanwhile was still true then, so the transaction is dated by the end of the wait.
create function lock_agencies(
    agencies text[], instant timestamptz, moving boolean,
    out latest timestamptz, out entered timestamptz, out locked timestamptz
)
language plpgsql volatile
as $$
begin
    entered := clock_timestamp();
    perform lock_agencies(agencies);
    if moving then
        instant := instant + greatest(clock_timestamp() - entered, interval '0');
    end if;
    with kept as (
        insert into agency_instant as known (agency_id, latest)
        select distinct agency, instant from unnest(agencies) as a(agency)
        on conflict (agency_id) do update set latest = greatest(known.latest, excluded.latest)
        returning known.latest
    )
    select max(kept.latest) into latest from kept;
    if latest > instant and cardinality(agencies) > 1 then
        update agency_instant as known set latest = lock_agencies.latest
        where known.agency_id = any (agencies) and known.latest < lock_agencies.latest;
    end if;
    locked := clock_timestamp();
end $$;

create function lock_for_request(
    agencies text[], instant timestamptz, moving boolean, of_agency text, of_key text,
    out latest timestamptz, out entered timestamptz, out locked timestamptz,
    out route text, out body_sha256 bytea, out status integer, out headers jsonb, out body bytea
)
language plpgsql volatile
as $$
begin
    select l.latest, l.entered, l.locked into latest, entered, locked from lock_agencies(agencies, instant, moving) as l;
    select i.route, i.body_sha256, i.status, i.headers, i.body into route, body_sha256, status, headers, body
    from idempotency as i
    where i.agency_id = of_agency and i.key = of_key;
end $$;

create function lock_for_events(
    agencies text[], instant timestamptz, moving boolean, of_group text, topics text[], topic_agencies text[]
) returns table (
    latest timestamptz, entered timestamptz, locked timestamptz,
    topic text, agency_id text, epoch integer, last_sequence bigint, gap boolean
)
language plpgsql volatile
as $$
begin
    select l.latest, l.entered, l.locked into latest, entered, locked from lock_agencies(agencies, instant, moving) as l;
    return query
    select lock_for_events.latest, lock_for_events.entered, lock_for_events.locked,
        k.topic, k.agency_id, a.epoch, a.last_sequence, p.gap
    from unnest(topics, topic_agencies) as k(topic, agency_id)
    left join applied as a
        on a.consumer_group = of_group and a.topic = k.topic and a.agency_id = k.agency_id
    left join parked_stream as p
        on p.consumer_group = of_group and p.topic = k.topic and p.agency_id = k.agency_id;
end $$;

-- migrate:down

drop function lock_for_events(text[], timestamptz, boolean, text, text[], text[]);
drop function lock_for_request(text[], timestamptz, boolean, text, text);
drop function lock_agencies(text[], timestamptz, boolean);
