"""The facts about a path: audit rows, events, their readers' progress, and deliveries with their attempts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from muster_contracts import Envelope, Position

Stream = tuple[str, str]  # topic, agency


@dataclass(frozen=True, slots=True)
class Commit:
    """A row of a service's audit trail."""

    service: str
    at: datetime
    agency_id: str
    actor: str
    command: str
    subject: str | None
    request_id: str | None
    correlation_id: str


@dataclass(frozen=True, slots=True)
class Published:
    """An event: on Kafka with its record's timestamp and place, or still in its producer's outbox."""

    topic: str
    envelope: Envelope
    at: datetime | None = None
    partition: int | None = None
    offset: int | None = None

    @property
    def stream(self) -> Stream:
        return self.topic, self.envelope.agency_id

    @property
    def position(self) -> Position:
        return Position(self.envelope.epoch, self.envelope.sequence)


@dataclass(frozen=True, slots=True)
class Parked:
    """A parked stream: since when, why, and the first waiting position."""

    since: datetime
    reason: str
    first: Position


@dataclass(frozen=True, slots=True)
class Progress:
    """A reader's last applied position and parked streams."""

    applied: dict[Stream, Position] = field(default_factory=dict)
    parked: dict[Stream, Parked] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt at a delivery."""

    at: datetime
    number: int
    milliseconds: int
    outcome: str
    detail: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """An e-mail or a webhook that notify sends for an event."""

    id: str
    at: datetime
    agency_id: str
    event_id: str
    event_type: str
    correlation_id: str
    channel: str
    recipient: str
    state: str
    next_attempt_at: datetime | None
    attempts: Sequence[Attempt] = ()


@dataclass
class Facts:
    """Everything found. `unseen` names what could not be read, and what may therefore be missing."""

    commits: list[Commit] = field(default_factory=list)
    events: dict[str, Published] = field(default_factory=dict)  # by ID
    deliveries: list[Delivery] = field(default_factory=list)
    progress: dict[str, Progress] = field(default_factory=dict)  # by reader; one that did not answer is absent
    unseen: list[str] = field(default_factory=list)

    def add(self, events: Iterable[Published]) -> bool:
        """Add events; return whether any is new. A record replaces the outbox row of the same event."""
        found = False
        for event in events:
            known = self.events.get(event.envelope.id)
            if known is None or (known.at is None and event.at is not None):
                self.events[event.envelope.id] = event
                found = True
        return found

    def correlation_ids(self) -> set[str]:
        """The correlation IDs of everything found."""
        return {
            *(commit.correlation_id for commit in self.commits),
            *(event.envelope.correlation_id for event in self.events.values()),
            *(delivery.correlation_id for delivery in self.deliveries),
        }

    def of(self, correlation_id: str) -> "Facts":
        """The facts of one path."""
        return Facts(
            [commit for commit in self.commits if commit.correlation_id == correlation_id],
            {id_: event for id_, event in self.events.items() if event.envelope.correlation_id == correlation_id},
            [delivery for delivery in self.deliveries if delivery.correlation_id == correlation_id],
            self.progress,
        )

    def instants(self) -> list[datetime]:
        """When each step happened, by the services' and Kafka's clocks, in order."""
        return sorted(
            [
                *(commit.at for commit in self.commits),
                *(event.at or event.envelope.time for event in self.events.values()),
                *(delivery.at for delivery in self.deliveries),
                *(attempt.at for delivery in self.deliveries for attempt in delivery.attempts),
            ]
        )

    def agencies(self) -> set[str]:
        """The agencies that appear on the path."""
        return {
            *(commit.agency_id for commit in self.commits),
            *(event.envelope.agency_id for event in self.events.values()),
            *(delivery.agency_id for delivery in self.deliveries),
        }
