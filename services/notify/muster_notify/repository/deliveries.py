"""Deliveries: intents, lanes and attempts."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from muster_notify.domain.deliveries import Channel, Delivery, Intent, Lane, Outcome, Progress
from muster_runtime.database.transactions import Connection


async def add_deliveries(connection: Connection, intents: Sequence[Intent], now: datetime) -> None:
    """Add a delivery for each intent that has none yet, at the end of its lane.

    What was missed finished when its endpoint was disabled, if that is later than `now`: a replay may begin there.
    """
    added = await connection.fetch(
        """
        insert into delivery (
            id, agency_id, event_id, event_type, correlation_id, traceparent, rule, channel, recipient, audience,
            payload, state, attempts, recorded_at, finished_at, last_error
        )
        select
            id, agency_id, event_id, event_type, correlation_id, traceparent, rule, channel, recipient, audience,
            payload, case when missed then 'failed' else 'pending' end, 0, $13,
            case when missed then greatest($13, (select w.disabled_at from webhook as w where w.id = recipient)) end,
            case when missed then 'the endpoint is disabled' end
        from unnest(
            $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::text[], $11::bytea[], $12::boolean[]
        ) with ordinality as intent (
            id, agency_id, event_id, event_type, correlation_id, traceparent, rule, channel, recipient, audience,
            payload, missed, number
        )
        order by number
        on conflict (event_id, rule, recipient) do nothing
        returning agency_id, recipient
        """,
        [i.delivery_id for i in intents],
        [i.agency_id for i in intents],
        [i.event_id for i in intents],
        [i.event_type for i in intents],
        [i.correlation_id for i in intents],
        [i.traceparent for i in intents],
        [i.rule for i in intents],
        [i.channel for i in intents],
        [i.recipient for i in intents],
        [i.audience for i in intents],
        [i.payload for i in intents],
        [i.missed for i in intents],
        now,
    )
    await save_heads_as_due(connection, {(row["agency_id"], row["recipient"]) for row in added}, now)


async def save_heads_as_due(connection: Connection, lanes: Collection[Lane], now: datetime) -> list[Delivery]:
    """Make the oldest pending delivery of each lane due now, unless it has its own instant.

    Returns those that may be attempted at once: not those that a replay holds.
    """
    rows = await connection.fetch(
        """
        update delivery as d
        set next_attempt_at = $3
        from (
            select oldest.id
            from unnest($1::text[], $2::text[]) as lane (agency_id, recipient)
            cross join lateral (
                select p.id, p.next_attempt_at
                from delivery as p
                where p.agency_id = lane.agency_id and p.recipient = lane.recipient and p.state = 'pending'
                order by p.position
                limit 1
            ) as oldest
            where oldest.next_attempt_at is null
        ) as head
        where d.id = head.id
        returning
            d.id, d.agency_id, d.event_type, d.correlation_id, d.traceparent, d.rule, d.channel, d.recipient,
            d.audience, d.payload, d.attempts, d.round_attempts, d.round_started_at, held_by_replay(d) as held
        """,
        [agency_id for agency_id, _ in lanes],
        [recipient for _, recipient in lanes],
        now,
    )
    return [_delivery(row) for row in rows if not row["held"]]


async def list_due(
    connection: Connection,
    channel: Channel,
    now: datetime,
    *,
    busy: Collection[Lane],
    served: Iterable[str] = (),
    withheld: Collection[str] = (),
    limit: int,
) -> list[Delivery]:
    """The deliveries to attempt now, except in busy lanes, for `withheld` audiences, and those that a replay holds.

    The audiences take turns: the oldest delivery of each first, then the second of each; those that were not `served`
    come before those that were, the last one at the end. All sorts are those of the index delivery_due_by_audience.
    """
    rows = await connection.fetch(
        """
        with recursive waiting (audience) as (
            select min(audience)
            from delivery
            where channel = $1 and next_attempt_at is not null
            union all
            select (
                select min(d.audience)
                from delivery as d
                where d.channel = $1 and d.next_attempt_at is not null and d.audience > w.audience
            )
            from waiting as w
            where w.audience is not null
        )
        select
            id, agency_id, event_type, correlation_id, traceparent, rule, channel, recipient, due.audience, payload,
            attempts, round_attempts, round_started_at
        from waiting as w
        cross join lateral (
            select d.*, row_number() over (order by d.audience, d.next_attempt_at, d.position) as turn
            from delivery as d
            where
                d.channel = $1 and d.audience = w.audience and d.next_attempt_at <= $2
                and (d.agency_id, d.recipient) not in (select * from unnest($3::text[], $4::text[]))
                and (
                    d.recipient not in (select r.webhook_id from replay as r where r.state = 'running')
                    or not held_by_replay(d)
                )
            order by d.audience, d.next_attempt_at, d.position
            limit $5
        ) as due
        where w.audience is not null and w.audience <> all($7::text[])
        order by turn, array_position($6::text[], due.audience) nulls first, next_attempt_at, position
        limit $5
        """,
        channel,
        now,
        [agency_id for agency_id, _ in busy],
        [recipient for _, recipient in busy],
        limit,
        list(served),
        list(withheld),
    )
    return [_delivery(row) for row in rows]


async def find_next_due(connection: Connection, after: datetime | None = None) -> datetime | None:
    """The earliest instant, or the earliest one after another, at which a delivery is due."""
    earliest: datetime | None = await connection.fetchval(
        "select min(next_attempt_at) from delivery where next_attempt_at > coalesce($1, timestamptz '-infinity')", after
    )
    return earliest


async def add_attempt(
    connection: Connection,
    delivery: Delivery,
    outcome: Outcome,
    progress: Progress,
    *,
    attempted_at: datetime,
    milliseconds: int,
) -> bool:
    """Record an attempt and the delivery's progress; False if another process did so meanwhile.

    An older delivery may have become pending during the attempt: then this one waits behind it. Somebody may have got
    the recipient's role, too: then it is due at once.
    """
    recorded = await connection.fetchval(
        """
        with attempted as (
            update delivery as d
            set
                state = $3,
                attempts = attempts + 1,
                round_attempts = case when $9 then 1 else round_attempts + 1 end,
                first_attempt_at = coalesce(first_attempt_at, $4),
                round_started_at = case when $9 then $4 else coalesce(round_started_at, $4) end,
                next_attempt_at = case
                    when
                        not exists (
                            select
                            from delivery as p
                            where
                                p.agency_id = d.agency_id and p.recipient = d.recipient
                                and p.state = 'pending' and p.position < d.position
                        )
                        then case
                            when
                                $3 = 'pending' and $10 and exists (
                                    select from directory as r where r.agency_id = d.agency_id and r.role = d.recipient
                                )
                                then $4
                            else $5::timestamptz
                        end
                end,
                finished_at = case $3
                    when 'delivered' then $4
                    when 'failed' then greatest($4, (select w.disabled_at from webhook as w where w.id = d.recipient))
                end,
                last_error = case when $3 = 'delivered' then null else $6 end
            where id = $1 and attempts = $2 and state = 'pending'
            returning id, agency_id, attempts
        )
        insert into delivery_attempt (
            delivery_id, agency_id, number, attempted_at, milliseconds, outcome, detail
        )
        select id, agency_id, attempts, $4, $7, $8, $6
        from attempted
        returning true
        """,
        delivery.id,
        delivery.attempts,
        progress.state,
        attempted_at,
        progress.next_attempt_at,
        outcome.detail,
        milliseconds,
        outcome.verdict,
        progress.new_round,
        outcome.without_role,
    )
    return recorded is not None


async def save_waiting_as_due(
    connection: Connection, agencies: Sequence[str], roles: Sequence[str], now: datetime
) -> None:
    """Make deliveries to these agencies' roles that wait for their next attempt due now."""
    await connection.execute(
        """
        update delivery
        set next_attempt_at = $3
        where
            next_attempt_at > $3 and state = 'pending'
            and (agency_id, recipient) in (select * from unnest($1::text[], $2::text[]))
        """,
        agencies,
        roles,
        now,
    )


async def save_as_due(connection: Connection, delivery_id: str, now: datetime) -> None:
    """Make a pending delivery that waits for its next attempt due now, in a new round."""
    await connection.execute(
        """
        update delivery
        set next_attempt_at = $2, round_attempts = 0, round_started_at = null
        where id = $1 and state = 'pending'
        """,
        delivery_id,
        now,
    )


async def save_as_pending(connection: Connection, delivery_ids: Sequence[str]) -> None:
    """Make failed deliveries pending again, in a new round. Call `save_order` for their lanes next."""
    await connection.execute(
        """
        update delivery
        set
            state = 'pending', next_attempt_at = null, finished_at = null,
            round_attempts = 0, round_started_at = null
        where id = any($1::text[]) and state = 'failed'
        """,
        delivery_ids,
    )


async def save_order(connection: Connection, lanes: Iterable[Lane], now: datetime) -> None:
    """Restore the order of lanes in which older deliveries became pending again: only the oldest is due now."""
    keys = list(lanes)
    await connection.execute(
        """
        update delivery as d
        set next_attempt_at = null
        from unnest($1::text[], $2::text[]) as lane (agency_id, recipient)
        where
            d.agency_id = lane.agency_id and d.recipient = lane.recipient and d.next_attempt_at is not null
            and exists (
                select
                from delivery as p
                where
                    p.agency_id = d.agency_id and p.recipient = d.recipient
                    and p.state = 'pending' and p.position < d.position
            )
        """,
        [agency_id for agency_id, _ in keys],
        [recipient for _, recipient in keys],
    )
    await save_heads_as_due(connection, keys, now)


def _delivery(row: Any) -> Delivery:
    fields = {name: row[name] for name in Delivery.__slots__}
    return Delivery(**{**fields, "channel": Channel(row["channel"])})
