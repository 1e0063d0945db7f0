"""Back-pressure while too many events wait in the outbox, as in a long outage of Kafka."""

from datetime import datetime

from muster_runtime.database.transactions import Connection
from muster_runtime.errors import TooManyRequests


class Backlog:
    """The runs of events that wait to be published. `look` counts them, and the relay subtracts what it publishes.

    `rows` is how many runs wait; `oldest` is when the first of them was recorded.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.rows = 0
        self.oldest: datetime | None = None

    async def look(self, connection: Connection) -> None:
        """Count the runs that wait now."""
        row = await connection.fetchrow("select count(*) as rows, min(recorded_at) as oldest from outbox")
        assert row is not None
        self.rows, self.oldest = row["rows"], row["oldest"]

    def shrink(self, rows: int) -> None:
        """Note that the relay has published this many runs."""
        self.rows = max(0, self.rows - rows)

    @property
    def is_full(self) -> bool:
        """Whether commands are refused, and long work waits, until the relay has published."""
        return self.rows >= self._limit

    def admit(self) -> None:
        """Raise TooManyRequests while the outbox is full."""
        if self.is_full:
            raise TooManyRequests("too many events are waiting to be published; try again later")
