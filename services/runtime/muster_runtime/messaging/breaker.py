"""The breaker: if handlers refuse too many events in a short time, the fault is ours, and nothing more is parked."""

from datetime import timedelta

from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import RetryableError

# How far back the breaker looks. It counts refused streams and refused deadlines separately.
WINDOW = timedelta(minutes=10)


class BreakerOpen(RetryableError):
    """Nothing is parked until the cause is fixed, or until parked streams or deadlines are replayed or discarded."""

    def __init__(self, limit: int, what: str) -> None:
        minutes = int(WINDOW.total_seconds() / 60)
        super().__init__(
            f"the breaker is open: {limit} {what} have parked within {minutes} minutes; "
            "fix the cause, then replay or discard them"
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
