"""The commands on webhook endpoints: add, delete, enable, rotate the secret, and replay."""

from collections.abc import Sequence
from datetime import timedelta
from urllib.parse import urlsplit

from muster_notify import queries
from muster_notify.adapters.vault import Vault, new_secret
from muster_notify.commands import AddWebhook, DeleteWebhook, EnableWebhook, ReplayWebhook, RotateWebhookSecret
from muster_notify.domain.endpoints import MAX_ENDPOINTS, Endpoint, Replay, WebhookState
from muster_notify.domain.rules import public_types, wanted_types
from muster_notify.domain.urls import check_url, normal_url
from muster_notify.errors import (
    AlreadyEnabled,
    DuplicateWebhook,
    EndpointNotEnabled,
    ReplayRunning,
    WebhookLimitReached,
)
from muster_notify.replies import NewWebhookReply, ReplayReply, RotatedSecretReply, WebhookReply
from muster_notify.repository import endpoints, replays
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import InvalidInput
from muster_runtime.identifiers import new_id
from muster_runtime.observability import audit


async def add_webhook(uow: UnitOfWork, command: AddWebhook, *, vault: Vault, allow_private: bool) -> NewWebhookReply:
    """Add an endpoint.

    Raises InvalidInput for a URL that is not allowed or a type that is not public, DuplicateWebhook if another
    endpoint sends one of the events to the same URL, and WebhookLimitReached.
    """
    check_url(command.url, allow_private=allow_private)
    if command.event_types is not None:
        _check_types(command.event_types)
    await _check_others(uow, command)
    secret = new_secret()
    endpoint = Endpoint(
        id=new_id("whk", uow.now),
        agency_id=command.agency_id,
        url=command.url,
        state=WebhookState.ENABLED,
        sealed_secret=vault.seal(secret),
    )
    uow.writes.add(endpoints.add_endpoint(endpoint, command.event_types, uow.now))
    audit.record(
        uow,
        command="AddWebhook",
        agency_id=command.agency_id,
        subject=endpoint.id,
        # The path of the URL may contain the receiver's secret.
        after={"host": urlsplit(command.url).netloc, "event_types": command.event_types},
    )
    return NewWebhookReply(
        webhook_id=endpoint.id,
        agency_id=endpoint.agency_id,
        url=endpoint.url,
        event_types=None if command.event_types is None else list(command.event_types),
        state=endpoint.state,
        created_at=uow.now,
        secret=secret,
    )


async def delete_webhook(uow: UnitOfWork, command: DeleteWebhook) -> None:
    """Delete an endpoint and its secret; its pending deliveries fail. Raises WebhookUnknown."""
    webhook = await queries.find_webhook(uow.connection, command.agency_id, command.webhook_id)
    await endpoints.delete_endpoint(uow.connection, webhook.webhook_id)
    audit.record(
        uow,
        command="DeleteWebhook",
        agency_id=command.agency_id,
        subject=webhook.webhook_id,
        before={"state": webhook.state},
        after={"state": WebhookState.DELETED},
    )


async def enable_webhook(uow: UnitOfWork, command: EnableWebhook) -> WebhookReply:
    """Enable an endpoint again, with its secret. Raises WebhookUnknown or AlreadyEnabled.

    What it missed stays failed until a replay sends it.
    """
    webhook = await queries.find_webhook(uow.connection, command.agency_id, command.webhook_id)
    if not await endpoints.save_enabled(uow.connection, webhook.webhook_id, uow.now):
        raise AlreadyEnabled(webhook.webhook_id)
    audit.record(
        uow,
        command="EnableWebhook",
        agency_id=command.agency_id,
        subject=webhook.webhook_id,
        before={"state": webhook.state, "state_reason": webhook.state_reason},
        after={"state": WebhookState.ENABLED},
    )
    uow.wake()
    return await queries.find_webhook(uow.connection, command.agency_id, command.webhook_id)


async def rotate_webhook_secret(uow: UnitOfWork, command: RotateWebhookSecret, *, vault: Vault) -> RotatedSecretReply:
    """Replace an endpoint's secret (Standard Webhooks, "Signature scheme": during a rotation, several secrets sign).

    A second rotation within the overlap ends the first: the oldest secret no longer signs. Raises WebhookUnknown.
    """
    webhook = await queries.find_webhook(uow.connection, command.agency_id, command.webhook_id)
    secret = new_secret()
    until = uow.now + timedelta(hours=command.overlap_hours) if command.overlap_hours else None
    await endpoints.save_secret(uow.connection, webhook.webhook_id, vault.seal(secret), until)
    audit.record(
        uow,
        command="RotateWebhookSecret",
        agency_id=command.agency_id,
        subject=webhook.webhook_id,
        after={"previous_secret_until": until},
    )
    return RotatedSecretReply(webhook_id=webhook.webhook_id, previous_secret_until=until, secret=secret)


async def replay_webhook(uow: UnitOfWork, command: ReplayWebhook) -> ReplayReply:
    """Start a replay; the replayer runs it in steps.

    Raises WebhookUnknown, InvalidInput for an instant in the future, EndpointNotEnabled, or ReplayRunning.
    """
    webhook = await queries.find_webhook(uow.connection, command.agency_id, command.webhook_id)
    if command.since > uow.now:
        raise InvalidInput("since", command.since, "must not be in the future")
    if webhook.state is not WebhookState.ENABLED:
        raise EndpointNotEnabled(webhook.webhook_id, webhook.state)
    if others := await replays.list_running(uow.connection, webhook.webhook_id):
        raise ReplayRunning(webhook.webhook_id, others[0].id)
    replay = Replay(new_id("rpl", uow.now), command.agency_id, webhook.webhook_id, command.since)
    await replays.add_replay(uow.connection, replay, uow.now)
    audit.record(
        uow,
        command="ReplayWebhook",
        agency_id=command.agency_id,
        subject=webhook.webhook_id,
        after={"replay_id": replay.id, "since": command.since},
    )
    uow.wake()
    return await queries.find_replay(uow.connection, command.agency_id, webhook.webhook_id, replay.id)


def _check_types(event_types: Sequence[str]) -> None:
    if not event_types:
        raise InvalidInput("event_types", [], "must name at least one type; omit it to get all")
    known = set(public_types())
    for event_type in event_types:
        if event_type not in known:
            raise InvalidInput("event_types", event_type, "must be the type of a public event")


async def _check_others(uow: UnitOfWork, command: AddWebhook) -> None:
    """Raise DuplicateWebhook if another endpoint sends one of the events to the same URL, or WebhookLimitReached."""
    url, wanted = normal_url(command.url), wanted_types(command.event_types)
    others = await endpoints.list_urls(uow.connection, command.agency_id)
    for webhook_id, other_url, types in others:
        if normal_url(other_url) == url and wanted & wanted_types(types):
            raise DuplicateWebhook(webhook_id)
    if len(others) >= MAX_ENDPOINTS:
        raise WebhookLimitReached(command.agency_id, MAX_ENDPOINTS)
