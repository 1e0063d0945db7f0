"""The routes of notify: decode and delegate."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import Field

from muster_notify import queries
from muster_notify.adapters.vault import Vault
from muster_notify.commands import (
    AddWebhook,
    DeleteWebhook,
    EnableWebhook,
    ReplayWebhook,
    RetryDelivery,
    RotateWebhookSecret,
)
from muster_notify.domain.deliveries import Channel, DeliveryState
from muster_notify.domain.endpoints import WebhookState
from muster_notify.domain.urls import LONGEST_URL, shown_url
from muster_notify.errors import WebhookLimitReached
from muster_notify.handlers import deliveries, webhooks
from muster_notify.replies import (
    DeliveryLogReply,
    DeliveryReply,
    NewWebhookReply,
    ReplayReply,
    RotatedSecretReply,
    WebhookReply,
)
from muster_notify.settings import NotifySettings
from muster_runtime.errors import Conflict
from muster_runtime.http.application import (
    EVERY_AGENCY,
    CommandsDep,
    PageDep,
    ReaderDep,
    RequestBody,
    RuntimeDep,
    WrittenInstant,
    requires,
    requires_program,
)
from muster_runtime.http.problem_responses import COMMON, problem_responses
from muster_runtime.pagination import Page

AgencyOrAll = Annotated[
    str,
    Path(pattern=r"^(\*|[A-Z][A-Z0-9-]{1,19})$", description="The agency, or `*` for the operators, who act for all."),
]

WebhookId = Annotated[str, Path(pattern=r"^whk_[0-9a-f]{32}$")]
ReplayId = Annotated[str, Path(pattern=r"^rpl_[0-9a-f]{32}$")]
DeliveryId = Annotated[str, Path(pattern=r"^dlv_[0-9a-f]{32}$")]

_READ = requires("notify:read")
_WRITE = requires("notify:write")


class WebhookRequest(RequestBody):
    """An endpoint to send events to."""

    url: str = Field(max_length=LONGEST_URL, examples=["https://agency.example/muster"])
    event_types: list[str] | None = Field(
        default=None,
        max_length=100,
        description="The event types to send. Default: every public type except those sent only on request.",
    )


class RotationRequest(RequestBody):
    """How long both secrets sign."""

    overlap_hours: int = Field(
        default=24,
        ge=0,
        le=72,
        description="Hours for which the previous secret also signs. 0 retires it immediately, such as after a leak.",
    )


class ReplayRequest(RequestBody):
    """The deliveries to send again."""

    since: WrittenInstant = Field(
        description="Replay what failed since this instant (RFC 3339), such as the endpoint's `disabled_at`."
    )


async def _settings(runtime: RuntimeDep) -> NotifySettings:
    settings = runtime.settings
    assert isinstance(settings, NotifySettings)
    return settings


SettingsDep = Annotated[NotifySettings, Depends(_settings)]

operators_router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], responses=COMMON)


@operators_router.get("", summary="List all webhooks", dependencies=[requires_program("notify:read")])
async def list_all_webhooks(
    reader: ReaderDep, page: PageDep, state: Annotated[WebhookState | None, Query()] = None
) -> Page[WebhookReply]:
    """Lists the endpoints of every agency, oldest first."""
    async with reader.read(EVERY_AGENCY) as connection:
        return await queries.list_webhooks(connection, page, state=state)


router = APIRouter(prefix="/v1/agencies/{agency_id}", responses=COMMON)


@router.post(
    "/webhooks",
    summary="Add a webhook",
    tags=["webhooks"],
    status_code=201,
    response_model=NewWebhookReply,
    dependencies=[_WRITE],
    responses=problem_responses(Conflict, WebhookLimitReached),
)
async def add_webhook(
    agency_id: AgencyOrAll, body: WebhookRequest, commands: CommandsDep, settings: SettingsDep
) -> Response:
    """Only this response shows the endpoint's secret and its whole URL."""
    command = AddWebhook(agency_id, body.url, None if body.event_types is None else tuple(body.event_types))
    return await commands.execute(
        agency_id,
        partial(
            webhooks.add_webhook,
            command=command,
            vault=Vault(settings.secret_key),
            allow_private=settings.webhook_allow_private,
        ),
        status_code=201,
        kept=_without_secrets,
    )


@router.get("/webhooks", summary="List an agency's webhooks", tags=["webhooks"], dependencies=[_READ])
async def list_webhooks(agency_id: AgencyOrAll, reader: ReaderDep, page: PageDep) -> Page[WebhookReply]:
    """Lists the agency's endpoints, oldest first, without their secrets or the paths of their URLs."""
    async with reader.read(agency_id) as connection:
        return await queries.list_webhooks(connection, page, agency_id=agency_id)


@router.delete(
    "/webhooks/{webhook_id}",
    summary="Delete a webhook",
    tags=["webhooks"],
    status_code=204,
    response_class=Response,
    dependencies=[_WRITE],
)
async def delete_webhook(agency_id: AgencyOrAll, webhook_id: WebhookId, commands: CommandsDep) -> Response:
    """Pending deliveries to the endpoint fail."""
    command = DeleteWebhook(agency_id, webhook_id)
    return await commands.execute(agency_id, partial(webhooks.delete_webhook, command=command), status_code=204)


@router.post(
    "/webhooks/{webhook_id}/enable",
    summary="Enable a webhook",
    tags=["webhooks"],
    response_model=WebhookReply,
    dependencies=[_WRITE],
    responses=problem_responses(Conflict),
)
async def enable_webhook(agency_id: AgencyOrAll, webhook_id: WebhookId, commands: CommandsDep) -> Response:
    """The endpoint keeps its secret. Start a replay to send what it missed."""
    command = EnableWebhook(agency_id, webhook_id)
    return await commands.execute(agency_id, partial(webhooks.enable_webhook, command=command))


@router.post(
    "/webhooks/{webhook_id}/secret-rotation",
    summary="Rotate the secret of a webhook",
    tags=["webhooks"],
    response_model=RotatedSecretReply,
    dependencies=[_WRITE],
)
async def rotate_webhook_secret(
    agency_id: AgencyOrAll,
    webhook_id: WebhookId,
    body: RotationRequest,
    commands: CommandsDep,
    settings: SettingsDep,
) -> Response:
    """Only this response shows the new secret. During the overlap, both secrets sign each request."""
    command = RotateWebhookSecret(agency_id, webhook_id, body.overlap_hours)
    return await commands.execute(
        agency_id,
        partial(webhooks.rotate_webhook_secret, command=command, vault=Vault(settings.secret_key)),
        kept=lambda rotated: rotated.model_copy(update={"secret": None}),
    )


@router.post(
    "/webhooks/{webhook_id}/replays",
    summary="Replay a webhook",
    tags=["webhooks"],
    status_code=202,
    response_model=ReplayReply,
    dependencies=[_WRITE],
    responses=problem_responses(Conflict),
)
async def replay_webhook(
    agency_id: AgencyOrAll, webhook_id: WebhookId, body: ReplayRequest, commands: CommandsDep
) -> Response:
    """Resends, in order, the deliveries that failed since an instant."""
    command = ReplayWebhook(agency_id, webhook_id, body.since)
    return await commands.execute(
        agency_id,
        partial(webhooks.replay_webhook, command=command),
        status_code=202,
        location=lambda replay: f"/v1/agencies/{agency_id}/webhooks/{webhook_id}/replays/{replay.replay_id}",
    )


@router.get(
    "/webhooks/{webhook_id}/replays/{replay_id}",
    summary="Retrieve a replay",
    tags=["webhooks"],
    dependencies=[_READ],
)
async def show_replay(
    agency_id: AgencyOrAll, webhook_id: WebhookId, replay_id: ReplayId, reader: ReaderDep
) -> ReplayReply:
    """Shows the progress of the replay."""
    async with reader.read(agency_id) as connection:
        return await queries.find_replay(connection, agency_id, webhook_id, replay_id)


@router.get("/deliveries", summary="List an agency's deliveries", tags=["deliveries"], dependencies=[_READ])
async def list_deliveries(
    agency_id: AgencyOrAll,
    reader: ReaderDep,
    page: PageDep,
    state: Annotated[DeliveryState | None, Query()] = None,
    channel: Annotated[Channel | None, Query()] = None,
) -> Page[DeliveryReply]:
    """Lists sent and pending deliveries, latest first."""
    async with reader.read(agency_id) as connection:
        return await queries.list_deliveries(
            connection, agency_id, page, tenant=reader.tenant(agency_id), state=state, channel=channel
        )


@router.get("/deliveries/{delivery_id}", summary="Retrieve a delivery", tags=["deliveries"], dependencies=[_READ])
async def show_delivery(agency_id: AgencyOrAll, delivery_id: DeliveryId, reader: ReaderDep) -> DeliveryLogReply:
    """Includes the log of all attempts."""
    async with reader.read(agency_id) as connection:
        return await queries.find_delivery(connection, agency_id, delivery_id, tenant=reader.tenant(agency_id))


@router.post(
    "/deliveries/{delivery_id}/retry",
    summary="Retry a delivery",
    tags=["deliveries"],
    response_model=DeliveryLogReply,
    dependencies=[_WRITE],
    responses=problem_responses(Conflict),
)
async def retry_delivery(
    agency_id: AgencyOrAll, delivery_id: DeliveryId, reader: ReaderDep, commands: CommandsDep
) -> Response:
    """Attempts a delivery now if it failed or is waiting for its next attempt."""
    command = RetryDelivery(agency_id, delivery_id, tenant=reader.tenant(agency_id))
    return await commands.execute(agency_id, partial(deliveries.retry_delivery, command=command))


def _without_secrets(webhook: NewWebhookReply) -> NewWebhookReply:
    return webhook.model_copy(update={"secret": None, "url": shown_url(webhook.url)})
