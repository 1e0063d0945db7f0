-- migrate:up

-- When an endpoint was last enabled again: earlier failures no longer count.
alter table webhook add column enabled_at timestamptz;

-- While a replay runs, deliveries later than their lane's missed ones are not attempted until those are pending.
create function held_by_replay(d delivery) returns boolean
language sql stable
begin atomic
    select exists (
        select
        from replay as r
        inner join delivery as m on m.recipient = r.webhook_id
        where
            r.webhook_id = d.recipient and r.state = 'running' and m.agency_id = d.agency_id
            and m.state = 'failed' and m.finished_at >= r.since and m.position < d.position
            and (m.agency_id, m.position) > (r.place_agency_id, r.place_position)
    );
end;

-- Heads of lanes that a replay held, and that nothing has made due since it ended. Row-level security is forced, and
-- would hide every row from the owner.
alter table delivery no force row level security;
update delivery as d
set next_attempt_at = d.recorded_at
where
    d.state = 'pending' and d.next_attempt_at is null
    and not exists (
        select
        from delivery as p
        where
            p.agency_id = d.agency_id and p.recipient = d.recipient
            and p.state = 'pending' and p.position < d.position
    );
alter table delivery force row level security;

-- migrate:down

drop function held_by_replay(delivery);
alter table webhook drop column enabled_at;
