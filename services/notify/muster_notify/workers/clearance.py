"""Decides which channels deliveries may be sent on, and to whom.

After a restore, nothing is sent while the facts are in doubt: the database has endpoints that were deleted, and secrets
that were replaced. After an outage, no e-mail is sent before notify has read who was erased meanwhile. An agency whose
erasures may be parked gets no e-mail.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from muster_contracts.enrollment import ContactErased
from muster_contracts.entitlements import PersonErased
from muster_notify.domain.deliveries import Channel
from muster_runtime.database.transactions import Connection
from muster_runtime.messaging import offsets, parked
from muster_runtime.messaging.kafka_topics import partitions_of
from muster_runtime.scheduling import hold
from muster_runtime.scheduling.news import ENDS_UNKNOWN, Ends
from muster_runtime.service import Runtime


class Clearance:
    """What one process may send while it leads."""

    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        partitions = {cls.topic: partitions_of(cls.topic, settings) for cls in (ContactErased, PersonErased)}
        self._group = runtime.group
        self._ends = Ends(runtime.clock, runtime.kafka, settings.topic_prefix, partitions)
        self._leads = False
        self._unread: str | None = None
        self._parked: Mapping[str, str] = {}

    @property
    def warnings(self) -> Sequence[str]:
        """Human-readable reasons why this process sends no e-mail, or none to some agencies."""
        if self._unread:
            return [f"no e-mail is sent: {self._unread}"]
        agencies = sorted(Counter(self._parked.values()).items())
        return [f"e-mails wait: their agency's stream of {topic} is parked (agencies: {n})" for topic, n in agencies]

    async def run(self) -> None:
        """Ask Kafka for the ends of the directory's topics when they are needed, until canceled."""
        await self._ends.run()

    def end(self) -> None:
        """End the clearance: the process no longer leads, or has not renewed its lease in time."""
        self._leads, self._unread, self._parked = False, None, {}

    async def channels(self, connection: Connection) -> Mapping[Channel, Collection[str]]:
        """The channels that the process, which leads, may send on now, each with the audiences that must wait."""
        if not self._leads:
            self._leads, self._unread = True, ENDS_UNKNOWN
            self._ends.forget()
        if self._unread is not None:
            self._unread = await self._find_unread(connection)
        # After the offsets: a record is parked by the transaction before its offset is stored.
        streams = await parked.streams(connection, self._group)
        self._parked = {each.agency_id: each.topic for each in streams if each.topic in self._ends.partitions}
        if await hold.are_facts_in_doubt(connection):
            return {}
        webhooks: dict[Channel, Collection[str]] = {Channel.WEBHOOK: ()}
        return webhooks if self._unread else {Channel.EMAIL: self._parked.keys(), **webhooks}

    async def _find_unread(self, connection: Connection) -> str | None:
        """What has not been read of the directory's topics, up to their ends after this process began to lead."""
        if not self._ends.are_known():
            return self._ends.why_unknown
        behind = self._ends.behind(await offsets.begins(connection, self._group))
        if not behind:
            return None
        topic, number = min(behind)
        return f"{topic}[{number}] has not been read yet"
