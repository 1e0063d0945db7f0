"""Turns a path into a tree: a commit, the events that it published, what their readers did with them, and so on."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from muster_contracts import BEFORE_FIRST, topics
from muster_operator.output import in_utc
from muster_operator.trace.facts import Commit, Delivery, Facts, Published

# The service whose effects are e-mails and webhooks.
_SENDER = "notify"


@dataclass
class Node:
    """A step of the path, and what followed from it. `at` is None if no record says when."""

    kind: str
    service: str
    text: str
    at: datetime | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    children: list["Node"] = field(default_factory=list)
    waits: bool = False  # or failed, so somebody may have to act


def grow(facts: Facts) -> list[Node]:
    """The steps of one path without a known cause, each with what followed, in order of time."""
    return list(_Grower(facts).roots())


def first_instant(roots: Iterable[Node]) -> datetime | None:
    """When the path begins; None if no step has an instant."""
    return min((node.at for node in walk(roots) if node.at is not None), default=None)


def walk(roots: Iterable[Node]) -> Iterator[Node]:
    """Each step, depth first."""
    for node in roots:
        yield node
        yield from walk(node.children)


def elapsed(duration: timedelta) -> str:
    """A duration since the first instant, such as `+1.2 s` or `-3 min 5 s`."""
    milliseconds = round(duration / timedelta(milliseconds=1))
    sign, rest = ("-" if milliseconds < 0 else "+"), abs(milliseconds)
    if rest < 1_000:
        return f"{sign}{rest} ms"
    if rest < 60_000:
        return f"{sign}{rest / 1_000:.1f} s"
    minutes, seconds = divmod(rest // 1_000, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    said = [f"{number} {unit}" for number, unit in parts if number]
    return sign + " ".join(said[:2])


def owner(event: Published) -> str:
    return topics()[event.topic].owner


class _Grower:
    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._events = sorted(facts.events.values(), key=lambda event: (event.envelope.time, event.envelope.id))
        self._grown: set[str] = set()
        self._placed: set[Commit] = set()
        self._sent: set[str] = set()

    def roots(self) -> Iterator[Node]:
        commands = sorted((each for each in self._facts.commits if each.actor != each.service), key=lambda c: c.at)
        first = [event for event in self._events if event.envelope.causation_id not in self._facts.events]
        nodes = [_commit(command) for command in commands]
        self._placed |= set(commands)
        for event in [*first, *self._events]:  # last, events that name each other as cause
            if event.envelope.id not in self._grown:
                self._node_of(event, commands, nodes).children.append(self._event(event))
        # The remaining commits are the services' own, for events whose records were not found.
        nodes += [_commit(commit) for commit in self._facts.commits if commit not in self._placed]
        for delivery in self._facts.deliveries:
            if delivery.id not in self._sent:
                text = f"{_short(delivery.event_type)}, whose record was not found"
                lost = Node("event", _owner_by_type(delivery), text, facts={"event_id": delivery.event_id})
                lost.children.append(_delivery(delivery))
                nodes.append(lost)
        yield from sorted(nodes, key=_first)

    def _node_of(self, event: Published, commands: list[Commit], nodes: list[Node]) -> Node:
        """The commit of an event without a known cause: its service's last one up to the event's time."""
        service, cause = owner(event), event.envelope.causation_id
        if cause is None:
            own = [each for each in zip(commands, nodes, strict=False) if each[0].service == service]
            before = [node for command, node in own if command.at <= event.envelope.time]
            if before or own:
                return before[-1] if before else own[0][1]
        text = "commit without an audit row" if cause is None else f"effect of {cause}, whose record was not found"
        for node in nodes:
            if (node.service, node.text, node.at) == (service, text, event.envelope.time):
                return node
        nodes.append(Node("commit", service, text, event.envelope.time, {"causation_id": cause}))
        return nodes[-1]

    def _event(self, event: Published) -> Node:
        envelope = event.envelope
        self._grown.add(envelope.id)
        place = None if event.offset is None else f"{event.topic}[{event.partition}]@{event.offset}"
        node = Node(
            "event",
            owner(event),
            f"{_short(envelope.type)} {envelope.sequence:,} of {event.topic}"
            + ("" if place else ": waits in the outbox"),
            event.at,
            {"event_id": envelope.id, "event_type": envelope.type, "committed_at": envelope.time, "record": place},
            waits=place is None,
        )
        caused = [
            each
            for each in self._events
            if each.envelope.causation_id == envelope.id and each.envelope.id not in self._grown
        ]
        readers = topics()[event.topic].readers if place else ()
        for service in readers:
            own = [each for each in caused if owner(each) == service]
            node.children.append(self._reader(service, event, own))
        node.children += [self._event(each) for each in caused if owner(each) not in readers]
        return node

    def _reader(self, service: str, event: Published, caused: list[Published]) -> Node:
        node = self._effect(service, event)
        for commit in self._facts.commits:
            if commit.service == commit.actor == service and commit not in self._placed and self._led_to(event, commit):
                self._placed.add(commit)
                node.children.append(_commit(commit))
        node.children += [self._event(each) for each in caused if each.envelope.id not in self._grown]
        if service == _SENDER:
            for delivery in self._facts.deliveries:
                if delivery.event_id == event.envelope.id:
                    self._sent.add(delivery.id)
                    node.children.append(_delivery(delivery))
        return node

    def _led_to(self, event: Published, commit: Commit) -> bool:
        """Whether this event, rather than another one that the reader reads, is the likelier cause of its audit row."""
        before = [
            each
            for each in self._events
            if commit.service in topics()[each.topic].readers and each.envelope.time <= commit.at
        ]
        return bool(before) and before[-1].envelope.id == event.envelope.id

    def _effect(self, service: str, event: Published) -> Node:
        progress = self._facts.progress.get(service)
        if progress is None:
            return Node("effect", service, "did not answer", facts={"state": "unknown"}, waits=True)
        parked = progress.parked.get(event.stream)
        if parked is not None and event.position >= parked.first:
            behind = "" if event.position == parked.first else f" behind {parked.first[1]:,}"
            told = {"state": "parked", "reason": parked.reason}
            return Node("effect", service, f"parked{behind}: {parked.reason}", parked.since, told, waits=True)
        if progress.applied.get(event.stream, BEFORE_FIRST) >= event.position:
            return Node("effect", service, "applied", facts={"state": "applied"})
        return Node("effect", service, "not applied yet", facts={"state": "waits"}, waits=True)


def _commit(commit: Commit) -> Node:
    text = f"{commit.command} {commit.subject or ''}".rstrip() + f" by {commit.actor}"
    facts = {
        "command": commit.command,
        "subject": commit.subject,
        "actor": commit.actor,
        "agency_id": commit.agency_id,
        "request_id": commit.request_id,
    }
    return Node("commit", commit.service, text, commit.at, facts)


def _delivery(delivery: Delivery) -> Node:
    later = "" if delivery.next_attempt_at is None else f", next attempt {in_utc(delivery.next_attempt_at)}"
    node = Node(
        "delivery",
        _SENDER,
        f"{delivery.channel} to {delivery.recipient}: {delivery.state}{later}",
        delivery.at,
        {
            "delivery_id": delivery.id,
            "channel": delivery.channel,
            "recipient": delivery.recipient,
            "state": delivery.state,
            "next_attempt_at": delivery.next_attempt_at,
        },
        waits=delivery.state != "delivered",
    )
    for attempt in delivery.attempts:
        detail = f": {attempt.detail}" if attempt.detail else ""
        facts = {
            "number": attempt.number,
            "outcome": attempt.outcome,
            "detail": attempt.detail,
            "milliseconds": attempt.milliseconds,
        }
        text = f"attempt {attempt.number} {attempt.outcome} in {attempt.milliseconds:,} ms{detail}"
        node.children.append(Node("attempt", _SENDER, text, attempt.at, facts))
    return node


def _first(node: Node) -> tuple[bool, float]:
    at = first_instant([node])
    return at is None, at.timestamp() if at else 0.0


def _short(event_type: str) -> str:
    """An event type without its service: `SeatAssigned.v1`."""
    return event_type.split(".", 2)[-1]


def _owner_by_type(delivery: Delivery) -> str:
    return delivery.event_type.split(".")[1] if delivery.event_type.count(".") > 1 else _SENDER
