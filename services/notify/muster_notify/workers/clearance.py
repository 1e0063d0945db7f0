"""Which channels deliveries may be sent on.

After a restore, nothing is sent while the deadlines are held: the database has endpoints that were deleted, and secrets
that were replaced. After an outage, no e-mail is sent before notify has read who was erased meanwhile.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

from muster_contracts.enrollment import ContactErased
from muster_contracts.entitlements import PersonErased
from muster_notify.domain.deliveries import Channel
from muster_runtime.database.transactions import Connection
from muster_runtime.messaging import offsets
from muster_runtime.messaging.kafka_topics import partitions_of
from muster_runtime.scheduling import hold
from muster_runtime.scheduling.news import ENDS_UNKNOWN, Ends
from muster_runtime.service import Runtime


class Clearance:
    """What one process may send while it leads."""

    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        partitions = {cls.topic: partitions_of(cls.topic, settings) for cls in (ContactErased, PersonErased)}
        self._clock = runtime.clock
        self._group = settings.topic_prefix + runtime.service.name
        self._ends = Ends(runtime.clock, runtime.kafka, settings.topic_prefix, partitions)
        self._leads_since: datetime | None = None
        self._unread: str | None = None

    @property
    def warnings(self) -> Sequence[str]:
        """Why this process sends no e-mail, for people."""
        return [f"no e-mail is sent: {self._unread}"] if self._unread else []

    async def run(self) -> None:
        """Ask Kafka for the ends of the directory's topics when they are needed, until canceled."""
        await self._ends.run()

    def end(self) -> None:
        """End the clearance: the process no longer leads, or has not renewed its lease in time."""
        self._leads_since = self._unread = None

    async def channels(self, connection: Connection) -> Collection[Channel]:
        """The channels that the process, which leads, may send on now."""
        if self._leads_since is None:
            self._leads_since, self._unread = self._clock.now(), ENDS_UNKNOWN
        if self._unread is not None:
            self._unread = await self._find_unread(connection, self._leads_since)
        if await hold.held_since(connection) is not None:
            return ()
        return (Channel.WEBHOOK,) if self._unread else (Channel.EMAIL, Channel.WEBHOOK)

    async def _find_unread(self, connection: Connection, since: datetime) -> str | None:
        """What of the directory's topics has not been read up to their ends at an instant."""
        if not self._ends.are_known(since):
            return self._ends.why_unknown
        behind = self._ends.behind(await offsets.begins(connection, self._group))
        if not behind:
            return None
        topic, number = min(behind)
        return f"{topic}[{number}] has not been read yet"
