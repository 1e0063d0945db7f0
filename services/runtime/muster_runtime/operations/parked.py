"""Parked streams: list, show, replay, discard, accept a gap."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field

from muster_contracts import Instant, topics
from muster_runtime.database.transactions import EVERY_AGENCY, Database, UnitOfWork
from muster_runtime.errors import Conflict
from muster_runtime.http.application import RuntimeDep
from muster_runtime.http.auth import requires_program
from muster_runtime.http.exchange import MEBIBYTE, body_limit
from muster_runtime.http.pagination import PageDep
from muster_runtime.http.problem_responses import COMMON, problem_responses
from muster_runtime.http.request_rules import RequestBody, WrittenReason
from muster_runtime.messaging import parked
from muster_runtime.messaging.parked import ParkedStream
from muster_runtime.messaging.record_reader import Item, Record
from muster_runtime.messaging.replay import Replayer
from muster_runtime.observability import personal_reads
from muster_runtime.operations import recovery
from muster_runtime.operations.commands import OperatorCommandsDep, SubscriptionsDep
from muster_runtime.operations.recovery import RecordName
from muster_runtime.pagination import Page

SHOWN_RECORDS = 20
SHOWN_BYTES = 10_000

# The longest part of a record's key that the record of a read stores.
_LONGEST_REFERENCE = 200

Topic = Annotated[str, Path(examples=["muster.enrollment.agency"])]


class ParkedStreamReply(BaseModel):
    """A parked stream, and how many records wait in it."""

    topic: str
    agency_id: str
    parked_at: Instant
    reason: str
    records: int


class RecordReply(BaseModel):
    """A raw record. Bytes that are not UTF-8 are escaped. Long values are cut, and the cut is marked."""

    partition: int
    offset: int
    sequence: int | None = Field(description="Its position in the stream; null if it has none.")
    key: str | None
    headers: dict[str, str]
    value: str | None


class ParkedStreamDetail(ParkedStreamReply):
    """A parked stream with the first records that wait in it."""

    first_records: Sequence[RecordReply]


class ReplayReply(BaseModel):
    """The result of a replay: `reason` says why the stream is still parked."""

    parked: bool
    reason: str | None


class Reason(RequestBody):
    """The reason, stored in the audit trail."""

    reason: WrittenReason


class DiscardRequest(Reason):
    """The records to discard, by partition and offset: the first that wait, in order."""

    records: Sequence[RecordName] = Field(min_length=1, max_length=500)


class DiscardReply(BaseModel):
    """How many records still wait in the stream. If none is left, the stream is unparked."""

    left: int


def parked_router(service: str) -> APIRouter:
    """The routes. They act for the whole program, so they require a token for all agencies."""
    router = APIRouter(
        prefix="/v1/parked", tags=["parked"], dependencies=[requires_program(f"{service}:operate")], responses=COMMON
    )

    @router.get("")
    async def list_parked(
        runtime: RuntimeDep, subscriptions: SubscriptionsDep, page: PageDep
    ) -> Page[ParkedStreamReply]:
        async with runtime.database.read(EVERY_AGENCY) as connection:
            found = await parked.streams(connection, subscriptions.group)
        streams = [stream for stream in found if page.after is None or _key(stream) > page.after]
        items = [_reply(stream) for stream in sorted(streams, key=_key)[: page.rows]]
        return page.make(items, key=_key)

    @router.get("/{topic}/{agency_id}")
    async def show_parked(
        request: Request, runtime: RuntimeDep, subscriptions: SubscriptionsDep, topic: Topic, agency_id: str
    ) -> ParkedStreamDetail:
        database, group = runtime.database, subscriptions.group
        stream = await _stream(database, group, topic, agency_id)
        route = f"GET {router.prefix}/{{topic}}/{{agency_id}}"
        async with personal_reads.reading(database, agency_id, route, request.state.context) as read:
            records = await parked.first_records(read.connection, group, topic, agency_id, SHOWN_RECORDS)
            read.saw(_people(topic, records))
        return ParkedStreamDetail(
            **_reply(stream).model_dump(),
            first_records=[_record_reply(item) for item in await subscriptions.read(records)],
        )

    @router.post("/{topic}/{agency_id}/replay")
    async def replay_parked(
        commands: OperatorCommandsDep,
        runtime: RuntimeDep,
        subscriptions: SubscriptionsDep,
        topic: Topic,
        agency_id: str,
    ) -> ReplayReply:
        """Apply the waiting records in order; safe to repeat. The last one unparks the stream."""
        await _stream(runtime.database, subscriptions.group, topic, agency_id)
        reason = await Replayer(runtime.database, subscriptions).replay(topic, agency_id, commands.context)
        return ReplayReply(parked=reason is not None, reason=reason)

    @router.post("/{topic}/{agency_id}/discard", response_model=DiscardReply, responses=problem_responses(Conflict))
    @body_limit(MEBIBYTE, keys=2_000)
    async def discard_parked(
        commands: OperatorCommandsDep,
        subscriptions: SubscriptionsDep,
        topic: Topic,
        agency_id: str,
        body: DiscardRequest,
    ) -> Response:
        """Discard the first waiting records permanently. Then replay the records behind them.

        The request names the records, so sending it again discards no others.
        """

        async def handler(uow: UnitOfWork) -> DiscardReply:
            left = await recovery.discard(uow, subscriptions, topic, agency_id, body.records, body.reason)
            return DiscardReply(left=left)

        return await commands.execute(agency_id, handler)

    return router


async def _stream(database: Database, group: str, topic: str, agency_id: str) -> ParkedStream:
    async with database.read(EVERY_AGENCY) as connection:
        stream = await parked.find(connection, group, topic, agency_id)
    if stream is None:
        raise recovery.not_parked(topic, agency_id)
    return stream


def _people(topic: str, records: Sequence[Record]) -> list[str]:
    """The people whose names and addresses are in the records: only a restricted topic keyed by people has any."""
    described = topics()[topic]
    if described.access == "public" or described.key != "subject_ref":
        return []
    return [_reference(record.key or b"?") for record in records]


def _reference(key: bytes) -> str:
    """A key as text that Postgres can store, even if a hostile record contains anything else."""
    return key.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")[:_LONGEST_REFERENCE]


def _key(stream: ParkedStream | ParkedStreamReply) -> str:
    return f"{stream.topic}/{stream.agency_id}"


def _reply(stream: ParkedStream) -> ParkedStreamReply:
    return ParkedStreamReply(**asdict(stream))


def _record_reply(item: Item) -> RecordReply:
    record = item.record
    headers: dict[str, str] = {}
    for name, raw in record.headers:
        value = _text(raw) or ""
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return RecordReply(
        partition=record.partition,
        offset=record.offset,
        sequence=None if item.position is None else item.position.sequence,
        key=_text(record.key),
        headers=headers,
        value=_text(record.value),
    )


def _text(raw: bytes | None) -> str | None:
    if raw is None:
        return None
    text = raw[:SHOWN_BYTES].decode("utf-8", "backslashreplace")
    return text if len(raw) <= SHOWN_BYTES else f"{text}... [cut: {len(raw):,} bytes in all]"
