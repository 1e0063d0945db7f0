"""Commands and events: each function is one transaction's work."""

import json
from collections.abc import Sequence
from functools import partial
from urllib.parse import urlsplit

import structlog

from muster_contracts import Event
from muster_contracts.enrollment import ContactErased, ContactRecorded
from muster_contracts.entitlements import PersonErased, PersonRecorded
from muster_notify import queries
from muster_notify.addresses import AddressPolicy, normal_url
from muster_notify.commands import AddWebhook, DeleteWebhook, EnableWebhook, ReplayWebhook, RetryDelivery
from muster_notify.domain import (
    OPERATORS,
    WEBHOOK_RULE,
    Channel,
    DeliveryState,
    Endpoint,
    Intent,
    Replay,
    WebhookState,
)
from muster_notify.queries import DeliveryLogView, NewWebhookView, ReplayView, WebhookView
from muster_notify.repository import deliveries, directory, endpoints, purge, replays
from muster_notify.rules import Rule, public_types, rules, wanted_types
from muster_notify.vault import Vault, new_secret
from muster_runtime.database.transactions import EVERY_AGENCY, UnitOfWork
from muster_runtime.errors import Conflict, InvalidInput
from muster_runtime.identifiers import new_id
from muster_runtime.messaging.events import Received
from muster_runtime.observability import audit

# The role of those who hold a seat; no rule writes to them yet.
PERSON = "person"

_log = structlog.get_logger(__name__)

# --------------------------------------------------------------------------------------------------- events


async def announce(uow: UnitOfWork, events: Sequence[Received[Event]]) -> None:
    """Write down whom to tell of these events: by e-mail as the rules say, and by the webhooks that want them.

    Frequent types have no rule; where no endpoint names them, this is one short query for the whole run.
    What happened before deliveries were purged is not announced: that may have been done, and is no longer known.
    """
    event_type = events[0].envelope.type
    email_rules = rules().for_event(event_type)
    subscribed = await endpoints.subscribed(
        uow.connection,
        sorted({event.envelope.agency_id for event in events}),
        event_type,
        on_request=event_type in rules().on_request,
    )
    if not email_rules and not subscribed:
        return
    purged_before = await purge.purged_before(uow.connection)
    new = [event for event in events if purged_before is None or event.envelope.time > purged_before]
    if len(new) < len(events):
        _log.warning("old_events_not_announced", event_type=event_type, events=len(events) - len(new))
    intents = [intent for event in new for intent in _intents(event, email_rules, subscribed)]
    if intents:
        await deliveries.add(uow.connection, intents, uow.now)
        uow.wake()


def _intents(event: Received[Event], email_rules: Sequence[Rule], subscribed: Sequence[Endpoint]) -> list[Intent]:
    agency_id = event.data.agency_id
    intent = partial(
        Intent,
        agency_id=agency_id,
        event_id=event.envelope.id,
        event_type=event.envelope.type,
        correlation_id=event.envelope.correlation_id,
        payload=_body(event),
    )
    emails = [
        intent(
            rule=rule.name,
            channel=Channel.EMAIL,
            recipient=rule.recipient,
            audience=EVERY_AGENCY if rule.recipient == OPERATORS else agency_id,
        )
        for rule in email_rules
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


def _body(event: Received[Event]) -> bytes:
    """The body of a webhook: type, timestamp and data as Standard Webhooks says, and the place in the stream."""
    envelope = event.envelope
    body = {
        "type": envelope.type,
        "timestamp": envelope.time.isoformat().replace("+00:00", "Z"),
        "id": envelope.id,
        "agency_id": envelope.agency_id,
        "topic": event.data.topic,
        "epoch": envelope.epoch,
        "sequence": envelope.sequence,
        "data": event.data.model_dump(mode="json"),
    }
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


async def record_contacts(uow: UnitOfWork, events: Sequence[Received[ContactRecorded]]) -> None:
    """Keep who speaks for an agency, and let the e-mails that wait for them go."""
    contacts = [event.data for event in events]
    roles = [contact.role for contact in contacts]
    await directory.record(uow.connection, contacts, roles)
    await deliveries.retry_now(uow.connection, [contact.agency_id for contact in contacts], roles, uow.now)
    uow.wake()


async def record_persons(uow: UnitOfWork, events: Sequence[Received[PersonRecorded]]) -> None:
    """Keep who holds a seat."""
    persons = [event.data for event in events]
    await directory.record(uow.connection, persons, [PERSON] * len(persons))


async def erase(uow: UnitOfWork, events: Sequence[Received[ContactErased | PersonErased]]) -> None:
    """Erase people from the directory, the only place here that knows them."""
    await directory.erase(uow.connection, [(event.data.agency_id, event.data.subject_ref) for event in events])


# ------------------------------------------------------------------------------------------------- commands


async def add_webhook(uow: UnitOfWork, command: AddWebhook, *, vault: Vault, policy: AddressPolicy) -> NewWebhookView:
    """Add an endpoint.

    Raises InvalidInput for a URL that is not allowed and for a type that is not public, Conflict where the URL gets
    one of the events already.
    """
    policy.check_url(command.url)
    if command.event_types is not None:
        _check_types(command.event_types)
    await _check_duplicate(uow, command)
    secret = new_secret()
    endpoint = Endpoint(
        id=new_id("whk", uow.now),
        agency_id=command.agency_id,
        url=command.url,
        state=WebhookState.ENABLED,
        sealed_secret=vault.seal(secret),
    )
    uow.writes.add(endpoints.add(endpoint, command.event_types, uow.now))
    audit.record(
        uow,
        command="AddWebhook",
        agency_id=command.agency_id,
        subject=endpoint.id,
        # A URL's path may hold a secret of the receiver's.
        after={"host": urlsplit(command.url).netloc, "event_types": command.event_types},
    )
    return NewWebhookView(
        webhook_id=endpoint.id,
        agency_id=endpoint.agency_id,
        url=endpoint.url,
        event_types=None if command.event_types is None else list(command.event_types),
        state=endpoint.state,
        created_at=uow.now,
        secret=secret,
    )


def _check_types(event_types: Sequence[str]) -> None:
    if not event_types:
        raise InvalidInput("event_types", [], "must name at least one type; omit it to get all")
    known = set(public_types())
    for event_type in event_types:
        if event_type not in known:
            raise InvalidInput("event_types", event_type, "must be the type of a public event")


async def _check_duplicate(uow: UnitOfWork, command: AddWebhook) -> None:
    """Raise Conflict where another endpoint sends one of the events to the same URL."""
    url, wanted = normal_url(command.url), wanted_types(command.event_types)
    for webhook_id, other_url, types in await endpoints.urls(uow.connection, command.agency_id):
        if normal_url(other_url) == url and wanted & wanted_types(types):
            raise Conflict(
                f"url: endpoint {webhook_id} already sends these events to this URL; enable that endpoint if it is "
                "disabled, delete it, or name other event_types"
            )


async def delete_webhook(uow: UnitOfWork, command: DeleteWebhook) -> None:
    """Delete an endpoint and its secret; what was still to be sent to it fails. Raises NotFound."""
    view = await queries.webhook(uow.connection, command.agency_id, command.webhook_id)
    await endpoints.delete(uow.connection, view.webhook_id)
    audit.record(
        uow,
        command="DeleteWebhook",
        agency_id=command.agency_id,
        subject=view.webhook_id,
        before={"state": view.state},
        after={"state": WebhookState.DELETED},
    )


async def enable_webhook(uow: UnitOfWork, command: EnableWebhook) -> WebhookView:
    """Enable an endpoint again, with its secret. Raises NotFound, and Conflict where it is enabled.

    What it missed stays failed: a replay sends it.
    """
    view = await queries.webhook(uow.connection, command.agency_id, command.webhook_id)
    if not await endpoints.enable(uow.connection, view.webhook_id, uow.now):
        raise Conflict(f"webhook {view.webhook_id} is already enabled")
    audit.record(
        uow,
        command="EnableWebhook",
        agency_id=command.agency_id,
        subject=view.webhook_id,
        before={"state": view.state, "state_reason": view.state_reason},
        after={"state": WebhookState.ENABLED},
    )
    uow.wake()
    return await queries.webhook(uow.connection, command.agency_id, command.webhook_id)


async def replay_webhook(uow: UnitOfWork, command: ReplayWebhook) -> ReplayView:
    """Begin a replay; the replayer does it in steps.

    Raises NotFound, InvalidInput for an instant to come, and Conflict where the endpoint is disabled or a replay runs.
    """
    view = await queries.webhook(uow.connection, command.agency_id, command.webhook_id)
    if command.since > uow.now:
        raise InvalidInput("since", command.since.isoformat(), "must not be in the future")
    if view.state is not WebhookState.ENABLED:
        raise Conflict(f"webhook {view.webhook_id} is {view.state}: enable it first")
    if others := await replays.running(uow.connection, view.webhook_id):
        raise Conflict(f"replay {others[0].id} of webhook {view.webhook_id} is running: wait until it is done")
    replay = Replay(new_id("rpl", uow.now), command.agency_id, view.webhook_id, command.since)
    await replays.add(uow.connection, replay, uow.now)
    audit.record(
        uow,
        command="ReplayWebhook",
        agency_id=command.agency_id,
        subject=view.webhook_id,
        after={"replay_id": replay.id, "since": command.since},
    )
    uow.wake()
    return await queries.replay(uow.connection, command.agency_id, view.webhook_id, replay.id)


async def retry_delivery(uow: UnitOfWork, command: RetryDelivery) -> DeliveryLogView:
    """Attempt a delivery now, or once those before it in its lane are done.

    Raises NotFound, and Conflict when it is delivered, waits behind an earlier one, or its endpoint gets nothing.
    """
    before = await queries.delivery(uow.connection, command.agency_id, command.delivery_id, tenant=command.tenant)
    if before.state is DeliveryState.DELIVERED:
        raise Conflict(f"delivery {before.delivery_id} is already delivered")
    if before.state is DeliveryState.PENDING and before.next_attempt_at is None:
        raise Conflict(f"delivery {before.delivery_id} waits behind an earlier one to {before.recipient}")
    if before.channel is Channel.WEBHOOK:
        await _require_enabled(uow, before, command.tenant)
    if before.state is DeliveryState.PENDING:
        await deliveries.hasten(uow.connection, before.delivery_id, uow.now)
    else:
        await deliveries.revive(uow.connection, [before.delivery_id])
        await deliveries.order(uow.connection, [(before.agency_id, before.recipient)], uow.now)
    audit.record(
        uow,
        command="RetryDelivery",
        agency_id=command.agency_id,
        subject=before.delivery_id,
        before={"state": before.state, "attempts": before.attempts},
        after={"state": DeliveryState.PENDING},
    )
    uow.wake()
    return await queries.delivery(uow.connection, command.agency_id, command.delivery_id, tenant=command.tenant)


async def _require_enabled(uow: UnitOfWork, delivery: DeliveryLogView, tenant: str) -> None:
    # An operators' endpoint is seen by operators alone, although the delivery is about an agency.
    await uow.connection.execute("select set_config('muster.agency', $1, true)", tenant)
    endpoint = await endpoints.find(uow.connection, delivery.recipient)
    replaying = await replays.running(uow.connection, endpoint.id)
    await uow.connection.execute("select set_config('muster.agency', $1, true)", delivery.agency_id)
    if replaying:
        raise Conflict(f"webhook {endpoint.id} is being replayed in order: retry when replay {replaying[0].id} is done")
    if endpoint.state is not WebhookState.ENABLED:
        cure = ": enable it first" if endpoint.state is WebhookState.DISABLED else ""
        raise Conflict(
            f"delivery {delivery.delivery_id} goes to webhook {endpoint.id}, which is {endpoint.state}{cure}"
        )
