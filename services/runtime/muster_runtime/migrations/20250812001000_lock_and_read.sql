-- migrate:up

-- Take the agencies' locks as lock_agencies does, and return the reply stored under a key of one of them. It is read
-- once the locks are held, and so sees what the previous transaction stored.
create function lock_for_request(
    agencies text[], instant timestamptz, of_agency text, of_key text,
    out latest timestamptz, out entered timestamptz, out locked timestamptz,
    out route text, out body_sha256 bytea, out status integer, out headers jsonb, out body bytea
)
language plpgsql volatile
as $$
begin
    select l.latest, l.entered, l.locked into latest, entered, locked from lock_agencies(agencies, instant) as l;
    select i.route, i.body_sha256, i.status, i.headers, i.body into route, body_sha256, status, headers, body
    from idempotency as i
    where i.agency_id = of_agency and i.key = of_key;
end $$;

-- Take the agencies' locks as lock_agencies does, and return for each of these streams the position that a consumer
-- group has applied, and whether the stream is parked for a gap; null if it is not parked.
create function lock_for_events(
    agencies text[], instant timestamptz, of_group text, topics text[], topic_agencies text[]
) returns table (
    latest timestamptz, entered timestamptz, locked timestamptz,
    topic text, agency_id text, epoch integer, last_sequence bigint, gap boolean
)
language plpgsql volatile
as $$
begin
    select l.latest, l.entered, l.locked into latest, entered, locked from lock_agencies(agencies, instant) as l;
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

drop function lock_for_events(text[], timestamptz, text, text[], text[]);
drop function lock_for_request(text[], timestamptz, text, text);
