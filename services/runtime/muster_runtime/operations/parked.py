"""Parked streams: list, show, replay, discard, accept a gap."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from muster_contracts import Instant
from muster_runtime.applier import Applier
from muster_runtime.auth import requires_program
from muster_runtime.db import EVERY_AGENCY, Database
from muster_runtime.errors import NotFound
from muster_runtime.pages import Page, PageDep
from muster_runtime.parking import ParkedStream, Record, parked_records, parked_streams

SHOWN_RECORDS = 20

Topic = Annotated[str, Path(examples=["muster.enrollment.agency"])]


class ParkedStreamReply(BaseModel):
    """A stream that stands still, and how many records wait in it."""

    topic: str
    agency_id: str
    parked_at: Instant
    reason: str
    records: int


class RecordReply(BaseModel):
    """A raw record; bytes that are not UTF-8 are shown escaped."""

    partition: int
    offset: int
    key: str | None
    headers: dict[str, str]
    value: str | None


class ParkedStreamDetail(ParkedStreamReply):
    """A parked stream with the first records that wait in it."""

    first_records: Sequence[RecordReply]


class ReplayReply(BaseModel):
    """What a replay came to: `reason` says why the stream still stands."""

    parked: bool
    reason: str | None


class Reason(BaseModel):
    """Why something is given up; it goes into the audit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str = Field(min_length=3, max_length=1000)


def parked_router(service: str, applier: Applier, database: Database) -> APIRouter:
    """The routes; they act for the whole program, so a token of one agency does not open them."""
    router = APIRouter(prefix="/v1/parked", tags=["parked"], dependencies=[requires_program(f"{service}:operate")])

    @router.get("")
    async def list_parked(page: PageDep) -> Page[ParkedStreamReply]:
        streams = [stream for stream in await _streams() if page.after is None or _key(stream) > page.after]
        items = [_reply(stream) for stream in sorted(streams, key=_key)[: page.limit + 1]]
        return page.make(items, key=_key)

    @router.get("/{topic}/{agency_id}")
    async def show_parked(topic: Topic, agency_id: str) -> ParkedStreamDetail:
        stream = await _stream(topic, agency_id)
        async with database.read(EVERY_AGENCY) as connection:
            records = await parked_records(connection, applier.group, topic, agency_id, SHOWN_RECORDS)
        return ParkedStreamDetail(
            **_reply(stream).model_dump(), first_records=[_record_reply(record) for record in records]
        )

    @router.post("/{topic}/{agency_id}/replay")
    async def replay_parked(request: Request, topic: Topic, agency_id: str) -> ReplayReply:
        """Apply what waits, in order; harmless to repeat. The stream is unparked with its last record."""
        await _stream(topic, agency_id)
        reason = await applier.replay(topic, agency_id, request.state.context)
        return ReplayReply(parked=reason is not None, reason=reason)

    @router.post("/{topic}/{agency_id}/discard")
    async def discard_parked(request: Request, topic: Topic, agency_id: str, body: Reason) -> ReplayReply:
        """Give up the first record that waits, for good; then replay what is behind it."""
        stream = await _stream(topic, agency_id)
        await applier.discard(topic, agency_id, body.reason, request.state.context)
        return ReplayReply(parked=stream.records > 1, reason=stream.reason if stream.records > 1 else None)

    async def _streams() -> list[ParkedStream]:
        async with database.read(EVERY_AGENCY) as connection:
            return await parked_streams(connection, applier.group)

    async def _stream(topic: str, agency_id: str) -> ParkedStream:
        for stream in await _streams():
            if (stream.topic, stream.agency_id) == (topic, agency_id):
                return stream
        raise NotFound(f"no stream of {agency_id[:40]!r} on topic {topic[:80]!r} is parked")

    return router


def _key(stream: ParkedStream | ParkedStreamReply) -> str:
    return f"{stream.topic}/{stream.agency_id}"


def _reply(stream: ParkedStream) -> ParkedStreamReply:
    return ParkedStreamReply(**asdict(stream))


def _record_reply(record: Record) -> RecordReply:
    return RecordReply(
        partition=record.partition,
        offset=record.offset,
        key=_text(record.key),
        headers={name: _text(value) or "" for name, value in record.headers},
        value=_text(record.value),
    )


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "backslashreplace")
