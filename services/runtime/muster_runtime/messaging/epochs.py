"""The epoch of a service's streams: raised after its database was restored, so that no position is assigned twice."""

from collections.abc import Sequence

from pydantic import BaseModel

from muster_runtime.database.transactions import EVERY_AGENCY, Database, UnitOfWork
from muster_runtime.observability import audit


class RaisedEpoch(BaseModel):
    """The new epoch, and how many streams go on in it; new streams begin in it."""

    epoch: int
    streams: int


async def agencies_with_streams(database: Database) -> list[str]:
    """The agencies whose streams go on in a raised epoch: all are locked for it."""
    async with database.read(EVERY_AGENCY) as connection:
        rows = await connection.fetch("select distinct agency_id from stream")
    return [row["agency_id"] for row in rows]


async def raise_epoch(uow: UnitOfWork, published: Sequence[int], reason: str, *, above: int = 0) -> RaisedEpoch:
    """Raise the epoch of all streams above every one so far and above `above`; their sequences go on.

    So do the events that wait in the outbox, but for the `published` rows, which are on their topic already: these
    would be new events otherwise. Nothing else of the service may run meanwhile: what it published in the old epoch
    would pass for known.
    """
    before = await uow.connection.fetchval(
        "select greatest((select number from epoch), (select max(epoch) from stream))"
    )
    epoch = max(before, above) + 1
    await uow.connection.execute("update epoch set number = $1", epoch)
    streams = await uow.connection.fetch("update stream set epoch = $1 returning true", epoch)
    await uow.connection.execute("update outbox set epoch = $1 where id <> all($2::bigint[])", epoch, published)
    audit.record(
        uow,
        command="RaiseEpoch",
        agency_id=EVERY_AGENCY,
        before={"epoch": before},
        after={"epoch": epoch, "streams": len(streams)},
        reason=reason,
    )
    return RaisedEpoch(epoch=epoch, streams=len(streams))
