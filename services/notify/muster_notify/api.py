"""Routes: decode and delegate."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from muster_notify import handlers, queries
from muster_notify.addresses import LONGEST_URL, AddressPolicy
from muster_notify.commands import AddWebhook, DeleteWebhook, RetryDelivery
from muster_notify.domain import Channel, DeliveryState
from muster_notify.queries import DeliveryLogView, DeliveryView, NewWebhookView, WebhookView
from muster_notify.vault import Vault
from muster_runtime.http import CommandsDep, Page, PageDep, ReaderDep, requires

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
            rows = await queries.webhooks(connection, agency_id, page)
        return page.make(rows, key=lambda webhook: webhook.webhook_id)

    @router.delete("/webhooks/{webhook_id}", status_code=204, response_class=Response, dependencies=[_WRITE])
    async def delete_webhook(agency_id: AgencyOrAll, webhook_id: str, commands: CommandsDep) -> Response:
        """Delete an endpoint; what was still to be sent to it fails."""
        command = DeleteWebhook(agency_id, webhook_id)
        return await commands.execute(agency_id, partial(handlers.delete_webhook, command=command), status_code=204)

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
