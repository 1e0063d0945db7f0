"""Turns public events into deliveries, according to the rules and the endpoints."""

import json
from collections.abc import Container, Sequence
from functools import partial

import structlog

from muster_contracts import Event
from muster_notify.domain.contacts import OPERATORS, PERSON, Person
from muster_notify.domain.deliveries import WEBHOOK_RULE, Channel, Intent
from muster_notify.domain.endpoints import Endpoint, WebhookState
from muster_notify.domain.rules import Rule, rules, types_on_request
from muster_notify.repository import deliveries, directory, endpoints, purge
from muster_runtime.database.transactions import EVERY_AGENCY, UnitOfWork
from muster_runtime.errors import rfc3339
from muster_runtime.messaging.events import Received

_log = structlog.get_logger(__name__)


async def on_public_event(uow: UnitOfWork, events: Sequence[Received[Event]]) -> None:
    """Record a delivery for each e-mail rule and each webhook that receives these events, all of one type.

    Frequent types have no rule; if no endpoint names them, this is one short query for the whole run. Events older than
    the last purged delivery are skipped, because they may have been announced already.
    """
    event_type = events[0].envelope.type
    email_rules = rules().for_event(event_type)
    subscribed = await endpoints.list_subscribed(
        uow.connection,
        sorted({received.envelope.agency_id for received in events}),
        event_type,
        on_request=event_type in types_on_request(),
    )
    if not email_rules and not subscribed:
        return
    purged_before = await purge.find_purged_before(uow.connection)
    new = [received for received in events if purged_before is None or received.envelope.time > purged_before]
    if len(new) < len(events):
        _log.warning("old_events_not_announced", event_type=event_type, events=len(events) - len(new))
    known = await _known_people(uow, new, email_rules)
    intents = [intent for received in new for intent in _intents(uow, received, email_rules, known, subscribed)]
    if intents:
        await deliveries.add_deliveries(uow.connection, intents, uow.now)
        uow.wake()


async def _known_people(
    uow: UnitOfWork, events: Sequence[Received[Event]], email_rules: Sequence[Rule]
) -> Container[Person]:
    """The reachable people among those that the events are about; empty if no rule is for people."""
    if not any(rule.recipient == PERSON for rule in email_rules):
        return ()
    return await directory.find_people(uow.connection, [_person_of(received.data) for received in events])


def _person_of(event: Event) -> Person:
    """The person that an event is about. A rule for people requires its type to have one."""
    return event.agency_id, getattr(event, "subject_ref")  # noqa: B009


def _recipient(rule: Rule, received: Received[Event], known: Container[Person]) -> str | None:
    """The recipient of the rule's e-mail about an event: a role, or a person's reference; None for nobody."""
    if not rule.applies_to(received.data, received.envelope.time):
        return None
    if rule.recipient != PERSON:
        return rule.recipient
    person = _person_of(received.data)
    return person[1] if person in known else None


def _intents(
    uow: UnitOfWork,
    received: Received[Event],
    email_rules: Sequence[Rule],
    known: Container[Person],
    subscribed: Sequence[Endpoint],
) -> list[Intent]:
    agency_id = received.data.agency_id
    intent = partial(
        Intent,
        agency_id=agency_id,
        event_id=received.envelope.id,
        event_type=received.envelope.type,
        correlation_id=received.envelope.correlation_id,
        traceparent=uow.context.traceparent_after(received.envelope.traceparent),
        payload=_body(received),
    )
    emails = [
        intent(
            rule=rule.name,
            channel=Channel.EMAIL,
            recipient=recipient,
            audience=EVERY_AGENCY if rule.recipient == OPERATORS else agency_id,
        )
        for rule in email_rules
        if (recipient := _recipient(rule, received, known)) is not None
    ]
    webhooks = [
        intent(
            rule=WEBHOOK_RULE,
            channel=Channel.WEBHOOK,
            recipient=endpoint.id,
            audience=endpoint.agency_id,
            missed=endpoint.state is WebhookState.DISABLED,
        )
        for endpoint in subscribed
        if endpoint.agency_id in (agency_id, EVERY_AGENCY)
    ]
    return emails + webhooks


def _body(received: Received[Event]) -> bytes:
    """The body of a webhook: type, timestamp, and data (Standard Webhooks), and the position in the stream."""
    envelope = received.envelope
    body = {
        "type": envelope.type,
        "timestamp": rfc3339(envelope.time),
        "id": envelope.id,
        "agency_id": envelope.agency_id,
        "topic": received.data.topic,
        "epoch": envelope.epoch,
        "sequence": envelope.sequence,
        "data": received.data.model_dump(mode="json"),
    }
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
