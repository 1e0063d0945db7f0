"""Routes: decode and delegate."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from muster_contracts import Instant
from muster_notify import handlers, queries
from muster_notify.addresses import LONGEST_URL, AddressPolicy
from muster_notify.commands import AddWebhook, DeleteWebhook, EnableWebhook, ReplayWebhook, RetryDelivery
from muster_notify.domain import Channel, DeliveryState, WebhookState
from muster_notify.queries import DeliveryLogView, DeliveryView, NewWebhookView, ReplayView, WebhookView
from muster_notify.vault import Vault
from muster_runtime.http import EVERY_AGENCY, CommandsDep, Page, PageDep, ReaderDep, requires, requires_program

AgencyOrAll = Annotated[
    str,
    Path(pattern=r"^(\*|[A-Z][A-Z0-9-]{1,19})$", description="The agency; `*` for an operator, who acts for all."),
]

_READ = requires("notify:read")
_WRITE = requires("notify:write")


class WebhookRequest(BaseModel):
    """Where to send events."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(max_length=LONGEST_URL, examples=["https://agency.example/muster"])
    event_types: list[str] | None = Field(
        default=None, max_length=100, description="Left out: every public type, except those sent on request alone."
    )


class ReplayRequest(BaseModel):
    """What is sent once more."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    since: Instant = Field(description="What failed from here on, such as the endpoint's `disabled_at`; RFC 3339.")


operators_router = APIRouter(prefix="/v1/webhooks", tags=["notify"])


@operators_router.get("", dependencies=[requires_program("notify:read")])
async def list_all_webhooks(
    reader: ReaderDep, page: PageDep, state: Annotated[WebhookState | None, Query()] = None
) -> Page[WebhookView]:
    """The endpoints of every agency, oldest first: for a token of the whole program."""
    async with reader.read(EVERY_AGENCY) as connection:
        rows = await queries.webhooks(connection, page, state=state)
    return page.make(rows, key=lambda webhook: webhook.webhook_id)


def make_router(vault: Vault, policy: AddressPolicy) -> APIRouter:
    """The routes, with what a new webhook needs."""
    router = APIRouter(prefix="/v1/agencies/{agency_id}", tags=["notify"])

    @router.post("/webhooks", status_code=201, response_model=NewWebhookView, dependencies=[_WRITE])
    async def add_webhook(agency_id: AgencyOrAll, body: WebhookRequest, commands: CommandsDep) -> Response:
        """Add an endpoint; its secret is shown this once."""
        command = AddWebhook(agency_id, body.url, None if body.event_types is None else tuple(body.event_types))
        return await commands.execute(
            agency_id,
            partial(handlers.add_webhook, command=command, vault=vault, policy=policy),
            status_code=201,
            kept=lambda view: view.model_copy(update={"secret": None}),
        )

    @router.get("/webhooks", dependencies=[_READ])
    async def list_webhooks(agency_id: AgencyOrAll, reader: ReaderDep, page: PageDep) -> Page[WebhookView]:
        """The agency's endpoints, oldest first."""
        async with reader.read(agency_id) as connection:
            rows = await queries.webhooks(connection, page, agency_id=agency_id)
        return page.make(rows, key=lambda webhook: webhook.webhook_id)

    @router.delete("/webhooks/{webhook_id}", status_code=204, response_class=Response, dependencies=[_WRITE])
    async def delete_webhook(agency_id: AgencyOrAll, webhook_id: str, commands: CommandsDep) -> Response:
        """Delete an endpoint; what was still to be sent to it fails."""
        command = DeleteWebhook(agency_id, webhook_id)
        return await commands.execute(agency_id, partial(handlers.delete_webhook, command=command), status_code=204)

    @router.post("/webhooks/{webhook_id}/enable", response_model=WebhookView, dependencies=[_WRITE])
    async def enable_webhook(agency_id: AgencyOrAll, webhook_id: str, commands: CommandsDep) -> Response:
        """Enable an endpoint again; it keeps its secret. What it missed is sent by a replay."""
        command = EnableWebhook(agency_id, webhook_id)
        return await commands.execute(agency_id, partial(handlers.enable_webhook, command=command))

    @router.post("/webhooks/{webhook_id}/replays", status_code=202, response_model=ReplayView, dependencies=[_WRITE])
    async def replay_webhook(
        agency_id: AgencyOrAll, webhook_id: str, body: ReplayRequest, commands: CommandsDep
    ) -> Response:
        """Send what could not be delivered since an instant once more, in order."""
        command = ReplayWebhook(agency_id, webhook_id, body.since)
        return await commands.execute(
            agency_id,
            partial(handlers.replay_webhook, command=command),
            status_code=202,
            location=lambda replay: f"/v1/agencies/{agency_id}/webhooks/{webhook_id}/replays/{replay.replay_id}",
        )

    @router.get("/webhooks/{webhook_id}/replays/{replay_id}", dependencies=[_READ])
    async def show_replay(agency_id: AgencyOrAll, webhook_id: str, replay_id: str, reader: ReaderDep) -> ReplayView:
        """How far a replay is."""
        async with reader.read(agency_id) as connection:
            return await queries.replay(connection, agency_id, webhook_id, replay_id)

    @router.get("/deliveries", dependencies=[_READ])
    async def list_deliveries(
        agency_id: AgencyOrAll,
        reader: ReaderDep,
        page: PageDep,
        state: Annotated[DeliveryState | None, Query()] = None,
        channel: Annotated[Channel | None, Query()] = None,
    ) -> Page[DeliveryView]:
        """What was or will be told, the latest first."""
        async with reader.read(agency_id) as connection:
            rows = await queries.deliveries(
                connection, agency_id, page, tenant=reader.tenant, state=state, channel=channel
            )
        return page.make(rows, key=lambda delivery: str(delivery.position))

    @router.get("/deliveries/{delivery_id}", dependencies=[_READ])
    async def show_delivery(agency_id: AgencyOrAll, delivery_id: str, reader: ReaderDep) -> DeliveryLogView:
        """A delivery with its attempts."""
        async with reader.read(agency_id) as connection:
            return await queries.delivery(connection, agency_id, delivery_id, tenant=reader.tenant)

    @router.post("/deliveries/{delivery_id}/retry", response_model=DeliveryLogView, dependencies=[_WRITE])
    async def retry_delivery(
        agency_id: AgencyOrAll, delivery_id: str, reader: ReaderDep, commands: CommandsDep
    ) -> Response:
        """Attempt a delivery now that failed, or that waits for its next attempt."""
        command = RetryDelivery(agency_id, delivery_id, tenant=reader.tenant)
        return await commands.execute(agency_id, partial(handlers.retry_delivery, command=command))

    return router
