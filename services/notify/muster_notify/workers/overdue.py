"""How late the deliveries are. Every process reports it, in case none dispatches them."""

from datetime import datetime

from prometheus_client import Gauge

from muster_notify.repository import deliveries
from muster_runtime.database.transactions import Connection
from muster_runtime.scheduling import hold

DELIVERY_OVERDUE_SECONDS = Gauge(
    "muster_delivery_overdue_seconds",
    "How long the oldest delivery that could be attempted now has been due.",
    ["service"],
)


async def measure_overdue(connection: Connection, now: datetime) -> None:
    """Set the gauge. While the deadlines are held, no delivery could be attempted."""
    held = await hold.are_held(connection)
    due_at = None if held else await deliveries.find_next_due(connection)
    overdue = 0.0 if due_at is None else max(0.0, (now - due_at).total_seconds())
    DELIVERY_OVERDUE_SECONDS.labels("notify").set(overdue)
