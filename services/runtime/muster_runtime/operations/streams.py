"""Streams: where each one stands, accepting a gap; after a restore, raising the epoch and reading anew."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field

from muster_runtime import epochs, positions
from muster_runtime.applier import Applier
from muster_runtime.auth import requires_program
from muster_runtime.db import EVERY_AGENCY, Database
from muster_runtime.http import RuntimeDep
from muster_runtime.operations.parked import Reason, Topic
from muster_runtime.operations.rewind import Rewound, rewind
from muster_runtime.pages import Page, PageDep
from muster_runtime.positions import StreamState

# Parts topic and agency in a cursor; neither can hold it.
_SEPARATOR = "/"


class EpochRequest(Reason):
    """Why the epoch is raised, and the highest one that any reader has seen: a backup may not know of it."""

    above: int = Field(default=0, ge=0, le=1_000_000, description="The new epoch is higher than this.")


def streams_router(service: str, applier: Applier, database: Database) -> APIRouter:
    """The routes; they act for the whole program, so a token of one agency does not open them."""
    router = APIRouter(prefix="/v1", tags=["streams"], dependencies=[requires_program(f"{service}:operate")])

    @router.get("/streams")
    async def list_streams(
        page: PageDep,
        topic: Annotated[str | None, Query(description="By default every topic.")] = None,
        agency_id: Annotated[str | None, Query(description="By default every agency.")] = None,
    ) -> Page[StreamState]:
        """The last position that this service has given out, and the last that it has applied, of each stream."""
        after_topic, _, after_agency = (page.after or "").partition(_SEPARATOR)
        async with database.read(EVERY_AGENCY) as connection:
            states = await positions.states(
                connection,
                applier.group,
                topic=topic,
                agency_id=agency_id,
                after=(after_topic, after_agency),
                limit=page.limit + 1,
            )
        return page.make(states, key=lambda state: f"{state.topic}{_SEPARATOR}{state.agency_id}")

    @router.post("/streams/{topic}/{agency_id}/gap")
    async def accept_gap(request: Request, topic: Topic, agency_id: str, body: Reason) -> StreamState:
        """Give up the missing sequences of a stream that is parked for them; then replay it."""
        await applier.accept_gap(topic, agency_id, body.reason, request.state.context)
        async with database.read(EVERY_AGENCY) as connection:
            (state,) = await positions.states(connection, applier.group, topic=topic, agency_id=agency_id, limit=1)
        return state

    @router.post("/epoch")
    async def raise_epoch(request: Request, runtime: RuntimeDep, body: EpochRequest) -> epochs.RaisedEpoch:
        """After a restore, and before the service publishes again: no position may be given out a second time."""
        return await epochs.raise_epoch(
            database, runtime.settings, body.reason, request.state.context, above=body.above
        )

    @router.post("/rewind")
    async def rewind_consumer(request: Request, runtime: RuntimeDep, body: Reason) -> Rewound:
        """After a restore, and before the service consumes again: let it read its topics from their beginning."""
        return await rewind(runtime.service, applier.group, database, body.reason, request.state.context)

    return router
