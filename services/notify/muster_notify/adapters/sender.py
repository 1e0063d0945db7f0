"""What an adapter offers that carries deliveries."""

from datetime import datetime
from typing import Protocol

from muster_notify.domain.deliveries import Delivery, Lane, Outcome
from muster_runtime.database.transactions import Database


class Sender(Protocol):
    """Carries deliveries over one channel."""

    async def send(self, database: Database, delivery: Delivery, now: datetime) -> Outcome:
        """Attempt a delivery once, at `now` by the runtime's clock."""
        ...

    async def settle(self, lane: Lane) -> None:
        """Wait for what attempts have left running; the lane keeps its slot until then."""
        ...

    async def close(self) -> None:
        """Release the connections."""
        ...
