"""The breaker: where handlers refuse much in a short time, the fault is ours, and no more parks."""

from datetime import timedelta

from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import RetryableError

# The window in which it counts the streams, and apart from them the deadlines, that parked since a handler refused.
WINDOW = timedelta(minutes=10)


class BreakerOpen(RetryableError):
    """Nothing parks until the cause is mended, or what is parked is replayed or discarded."""

    def __init__(self, limit: int, what: str) -> None:
        minutes = int(WINDOW.total_seconds() / 60)
        super().__init__(
            f"the breaker is open: {limit} {what} have parked within {minutes} minutes; "
            "mend the cause, then replay or discard them"
        )


async def check(uow: UnitOfWork, group: str, limit: int) -> None:
    """Raise BreakerOpen if handlers have refused events of `limit` streams within WINDOW."""
    recent = await uow.connection.fetchval(
        "select count(*) from parked_stream where consumer_group = $1 and parked_at > $2 and refused",
        group,
        uow.now - WINDOW,
    )
    if recent >= limit:
        raise BreakerOpen(limit, "streams")


async def check_deadlines(uow: UnitOfWork, limit: int) -> None:
    """Raise BreakerOpen if handlers have refused `limit` deadlines within WINDOW."""
    recent = await uow.connection.fetchval("select count(*) from deadline where parked_at > $1", uow.now - WINDOW)
    if recent >= limit:
        raise BreakerOpen(limit, "deadlines")
