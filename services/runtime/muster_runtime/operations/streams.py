"""Streams: the position of each, accepting a gap; after a restore, raising the epoch and rereading."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field

from muster_contracts import MAX_SEQUENCE
from muster_runtime.database.transactions import EVERY_AGENCY, UnitOfWork
from muster_runtime.errors import Conflict, InvalidInput, NotFound
from muster_runtime.http.application import RuntimeDep
from muster_runtime.http.auth import requires_program
from muster_runtime.http.pagination import PageDep
from muster_runtime.http.problem_responses import COMMON, problem_responses
from muster_runtime.messaging import comparison, epochs, passing, positions
from muster_runtime.messaging.positions import StreamState
from muster_runtime.messaging.restore_guard import published_runs
from muster_runtime.operations import recovery
from muster_runtime.operations.commands import OperatorCommandsDep, SubscriptionsDep
from muster_runtime.operations.parked import Reason, Topic
from muster_runtime.operations.rewind import Rewound, rewind
from muster_runtime.pagination import Page
from muster_runtime.scheduling import hold

# Kafka's highest offset minus one, so that adding one does not overflow.
MAX_OFFSET = 2**63 - 2

Partition = Annotated[int, Path(ge=0, lt=2**31)]

# Separates topic and agency in a cursor; neither can contain it.
_SEPARATOR = "/"


class GapRequest(Reason):
    """The gap to accept, identified by the record that waits behind it, and the reason."""

    waiting: int = Field(strict=True, ge=1, le=MAX_SEQUENCE, description="The sequence of the first waiting record.")


class EpochRequest(Reason):
    """The reason, and the highest epoch that any reader has seen, which a backup may lack."""

    above: int = Field(default=0, strict=True, ge=0, le=1_000_000, description="The new epoch is higher than this.")


class EpochReply(epochs.RaisedEpoch):
    """The new epoch, and how many streams continue in it. The service's deadlines are held from then on."""

    deadlines_held: Literal[True] = True


class PassRequest(Reason):
    """The offset of the record to skip, and the reason.

    If a whole batch is damaged, `last_offset` is the offset of its last record.
    """

    offset: int = Field(
        strict=True, ge=0, le=MAX_OFFSET, description="The offset, as readiness reports it: topic[partition]@offset."
    )
    last_offset: int | None = Field(default=None, strict=True, ge=0, le=MAX_OFFSET, description="Default: `offset`.")


class Passed(BaseModel):
    """The skipped records. The consumer continues after them, and the relay does not count them as its own events."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int


def streams_router(service: str) -> APIRouter:
    """The routes. They act for the whole program, so they require a token for all agencies."""
    router = APIRouter(
        prefix="/v1", tags=["streams"], dependencies=[requires_program(f"{service}:operate")], responses=COMMON
    )

    @router.get("/streams")
    async def list_streams(
        runtime: RuntimeDep,
        subscriptions: SubscriptionsDep,
        page: PageDep,
        topic: Annotated[str | None, Query(description="Default: every topic.")] = None,
        agency_id: Annotated[str | None, Query(description="Default: every agency.")] = None,
    ) -> Page[StreamState]:
        """The last position that this service assigned in each stream, and the last that it applied."""
        after_topic, _, after_agency = (page.after or "").partition(_SEPARATOR)
        async with runtime.database.read(EVERY_AGENCY) as connection:
            states = await positions.states(
                connection,
                subscriptions.group,
                topic=topic,
                agency_id=agency_id,
                after=(after_topic, after_agency),
                limit=page.rows,
            )
        return page.make(states, key=lambda state: f"{state.topic}{_SEPARATOR}{state.agency_id}")

    @router.post("/streams/{topic}/{agency_id}/gap", response_model=StreamState, responses=problem_responses(Conflict))
    async def accept_gap(
        commands: OperatorCommandsDep,
        subscriptions: SubscriptionsDep,
        topic: Topic,
        agency_id: str,
        body: GapRequest,
    ) -> Response:
        """Accept that the missing sequences of a parked stream will never arrive. Then replay the stream.

        The request names the record behind the gap, so sending it again accepts no later gap.
        """

        async def handler(uow: UnitOfWork) -> StreamState:
            await recovery.accept_gap(uow, subscriptions, topic, agency_id, body.waiting, body.reason)
            await uow.flush()  # so that the state shows the accepted position
            found = await positions.states(
                uow.connection, subscriptions.group, topic=topic, agency_id=agency_id, limit=1
            )
            return found[0]

        return await commands.execute(agency_id, handler)

    @router.post("/epoch", response_model=EpochReply, responses=problem_responses(Conflict))
    async def raise_epoch(commands: OperatorCommandsDep, runtime: RuntimeDep, body: EpochRequest) -> Response:
        """Raise the epoch of the service's streams.

        Do this after a restore, before the service publishes again, so that no position is assigned twice. It also
        holds the service's deadlines until they are released: the restored facts are out of date.
        """
        database, settings = runtime.database, runtime.settings
        since = await epochs.database_now(database)
        published = await published_runs(database, runtime.kafka, settings.topic_prefix)
        agencies = await epochs.agencies_with_streams(database)

        async def handler(uow: UnitOfWork) -> EpochReply:
            await epochs.require_no_other_relay(uow, service, settings.instance, since)
            raised = await epochs.raise_epoch(uow, published, body.reason, above=body.above)
            await hold.begin(uow)
            await comparison.forget_all(uow)
            if runtime.service.epoch_raised is not None:
                await runtime.service.epoch_raised(uow.connection, raised.epoch)
            return EpochReply(epoch=raised.epoch, streams=raised.streams)

        return await commands.execute(EVERY_AGENCY, handler, *agencies)

    @router.post("/rewind", response_model=Rewound, responses=problem_responses(Conflict))
    async def rewind_consumer(
        commands: OperatorCommandsDep, runtime: RuntimeDep, subscriptions: SubscriptionsDep, body: Reason
    ) -> Response:
        """Make the service read its topics from the beginning. Do this after a restore, before it consumes again."""

        async def handler(uow: UnitOfWork) -> Rewound:
            return await rewind(uow, runtime.service, runtime.kafka, subscriptions.group, body.reason)

        return await commands.execute(EVERY_AGENCY, handler)

    @router.post("/partitions/{topic}/{partition}/pass", response_model=Passed)
    async def pass_record(
        commands: OperatorCommandsDep,
        runtime: RuntimeDep,
        subscriptions: SubscriptionsDep,
        topic: Topic,
        partition: Partition,
        body: PassRequest,
    ) -> Response:
        """Make the consumer skip a record that it cannot decode; safe to repeat.

        If an agency's event is missing after that, the agency's stream parks for the gap. On a topic that the service
        writes, this lets the relay continue after another program wrote a record at a position that the service has not
        assigned.
        """
        if topic not in runtime.service.topics:
            raise NotFound(f"{service} neither reads nor writes the topic {topic[:80]!r}")
        last = body.offset if body.last_offset is None else body.last_offset
        if last < body.offset:
            raise InvalidInput("last_offset", last, f"must not be lower than offset ({body.offset})")
        records = passing.OffsetRange(topic, partition, body.offset, last)

        async def handler(uow: UnitOfWork) -> Passed:
            await passing.let_pass(uow, subscriptions.group, records, body.reason)
            return Passed(**records._asdict())

        return await commands.execute(EVERY_AGENCY, handler)

    return router
