"""The epoch of a service's streams: raised after its database is restored, so that no position is assigned twice."""

from collections.abc import Mapping
from datetime import datetime

from pydantic import BaseModel

from muster_runtime.database.transactions import EVERY_AGENCY, Database, UnitOfWork
from muster_runtime.errors import Conflict
from muster_runtime.messaging.lease import LEASE_SECONDS, RELAY, RELAY_COMPACTED
from muster_runtime.observability import audit


class RaisedEpoch(BaseModel):
    """The new epoch, and how many streams continue in it. New streams begin in it."""

    epoch: int
    streams: int


async def agencies_with_streams(database: Database) -> list[str]:
    """The agencies that have streams. All of them are locked while the epoch is raised."""
    async with database.read(EVERY_AGENCY) as connection:
        rows = await connection.fetch("select distinct agency_id from stream")
    return [row["agency_id"] for row in rows]


async def database_now(database: Database) -> datetime:
    """The database's time, which leases are based on."""
    async with database.connection() as connection:
        now: datetime = await connection.fetchval("select clock_timestamp()")
    return now


async def require_no_other_relay(uow: UnitOfWork, service: str, instance: str, since: datetime) -> None:
    """Raise Conflict if another instance's relay leads, or led after `since`. No relay can start before the commit.

    A relay may have been killed between Kafka's acknowledgment and its own delete. Its events would then be published
    in both epochs.
    """
    await uow.connection.execute("lock table lease in share mode")
    others = await uow.connection.fetchval(
        """
        select exists (
            select
            from lease
            where
                duty = any($1)
                and holder <> $2
                and expires_at between $3 and clock_timestamp() + make_interval(secs => $4)
        )
        """,
        [RELAY, RELAY_COMPACTED],
        instance,
        since,
        LEASE_SECONDS,
    )
    if others:
        raise Conflict(
            f"a process of {service} is still publishing: stop every process except one with the role operations. "
            "A killed process counts for up to three more seconds"
        )


async def raise_epoch(uow: UnitOfWork, published: Mapping[int, int], reason: str, *, above: int = 0) -> RaisedEpoch:
    """Raise the epoch of all streams above every epoch so far and above `above`. Their sequences continue.

    Events that wait in the outbox move to the new epoch, except the `published` rows: those are already on their topic,
    in this epoch, and would become new events. They wait in that epoch, so that readers skip them. In each stream, a
    published row that follows one that moves, or one in a higher epoch, also moves: readers need the stream's order.
    Nothing else of the service may run meanwhile (`require_no_other_relay`): readers would skip what it publishes in
    the old epoch as already known.
    """
    before = await uow.connection.fetchval("select number from epoch")
    epoch = max(before, above, *published.values()) + 1
    await uow.connection.execute("update epoch set number = $1", epoch)
    streams = await uow.connection.fetch("update stream set epoch = $1 returning true", epoch)
    await uow.connection.execute(
        """
        with run as (
            select o.id, o.topic, o.agency_id, o.first_sequence, p.epoch, max(p.epoch) over stream as latest
            from outbox as o
            left join unnest($2::bigint[], $3::integer[]) as p (id, epoch) using (id)
            window stream as (partition by o.topic, o.agency_id order by o.first_sequence)
        ),
        moved as (
            select topic, agency_id, min(first_sequence) as first
            from run
            where epoch is null or epoch < latest
            group by topic, agency_id
        )
        update outbox as o
        set epoch = case when run.first_sequence >= moved.first then $1 else run.epoch end
        from run
        left join moved using (topic, agency_id)
        where o.id = run.id and (o.epoch < run.epoch or run.first_sequence >= moved.first)
        """,
        epoch,
        list(published),
        list(published.values()),
    )
    audit.record(
        uow,
        command="RaiseEpoch",
        agency_id=EVERY_AGENCY,
        before={"epoch": before},
        after={"epoch": epoch, "streams": len(streams)},
        reason=reason,
    )
    return RaisedEpoch(epoch=epoch, streams=len(streams))
