"""The routes of use: report many uses after the fact, or check and count one immediately."""

import json
from decimal import Decimal
from functools import partial
from json import JSONDecodeError
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from muster_contracts import AgencyId
from muster_entitlements.api.parameters import LONGEST_SUBJECT, OPERATE, PREFIX, READ, WRITE, WRITE_ALL, DirectoryDep
from muster_entitlements.commands import ConsumeFeature, GrantQuota
from muster_entitlements.domain.as_of import require_past
from muster_entitlements.domain.usage import EVENT_TYPE, MOST_USES
from muster_entitlements.errors import FeatureUnknown, GrantsFull, PoolUnknown, QuotaGrantsFull, QuotaUsedUp, UseRefused
from muster_entitlements.handlers import consumption, quota_grants, usage_reports
from muster_entitlements.queries import usage as queries
from muster_entitlements.queries.checks import lock_for_use
from muster_entitlements.replies.usage import ConsumptionReply, QuotaGrantReply, UsageReply, UsageSumReply
from muster_runtime.errors import InvalidInput, MalformedJson, NotFound
from muster_runtime.http.application import (
    MEBIBYTE,
    CommandsDep,
    PageDep,
    ReaderDep,
    RequestBody,
    RuntimeDep,
    WrittenInstant,
    WrittenReason,
    body_limit,
)
from muster_runtime.http.problem_responses import COMMON, problem_responses
from muster_runtime.http.tenancy import KeyHeader
from muster_runtime.pagination import Page

MOST_EVENTS = 10_000

# Fits this many events with the longest values.
BATCH_LIMIT = 12 * MEBIBYTE
BATCH_KEYS = 20 * MOST_EVENTS

_BATCH = {
    "requestBody": {
        "required": True,
        "content": {
            "application/cloudevents-batch+json": {
                "schema": {
                    "type": "array",
                    # An invalid item does not fail the batch: the reply names it.
                    "items": {"description": "A CloudEvent (1.0.2) in its JSON format."},
                    "maxItems": MOST_EVENTS,
                },
                "example": [
                    {
                        "specversion": "1.0",
                        "id": "8f1c",
                        "source": "https://assistant.example.gov/research",
                        "type": EVENT_TYPE,
                        "time": "2025-11-03T14:05:00Z",
                        "data": {
                            "agency_id": "NASA",
                            "subject_ref": "sub_01987b3e0000700080000000000000bb",
                            "feature": "deep-research",
                            "amount": 1,
                        },
                    }
                ],
            }
        },
    }
}


class ConsumptionRequest(RequestBody):
    """Uses of a feature by a person."""

    subject: str = Field(max_length=LONGEST_SUBJECT, description="An e-mail address or a subject reference.")
    feature: str
    amount: int = Field(default=1, strict=True, ge=1, le=MOST_USES)


class QuotaGrantRequest(RequestBody):
    """Uses beyond a quota, which every subscriber receives, and the reason, which only the audit trail keeps."""

    feature: str = Field(max_length=60)
    subject: str | None = Field(
        default=None,
        max_length=LONGEST_SUBJECT,
        description="An e-mail address or a subject reference. Default: all people of the agency.",
    )
    amount: int = Field(strict=True, ge=1, le=2**53)
    priority: int = Field(default=0, strict=True, ge=-1000, le=1000, description="The lowest is spent first.")
    starts_at: WrittenInstant | None = Field(default=None, description="Default: now.")
    ends_at: WrittenInstant | None = Field(default=None, description="Exclusive. Default: no end.")
    reason: WrittenReason


router = APIRouter(tags=["usage"], responses=COMMON)


@router.post(
    f"{PREFIX}/usage/consume",
    summary="Consume a feature",
    dependencies=[WRITE],
    response_model=ConsumptionReply,
    responses=problem_responses(NotFound, FeatureUnknown, UseRefused, QuotaUsedUp),
)
async def consume_feature(
    agency_id: AgencyId,
    body: ConsumptionRequest,
    commands: CommandsDep,
    directory: DirectoryDep,
    idempotency_key: KeyHeader = None,
) -> Response:
    """Checks and counts uses, all or none. Concurrent requests cannot exceed a hard quota.

    The reply is kept under its Idempotency-Key for a day.
    """
    subject_ref = directory.subject_ref(agency_id, body.subject)
    command = ConsumeFeature(agency_id, subject_ref, body.feature, body.amount)
    async with commands.write(agency_id, lock=lock_for_use(subject_ref, body.feature)) as uow:
        reply, replayed = await consumption.consume_once(uow, command, idempotency_key)
    headers = {"idempotency-replayed": "true"} if replayed else {}
    return Response(reply, headers=headers, media_type="application/json")


@router.post("/v1/usage", summary="Report usage", dependencies=[WRITE_ALL], openapi_extra=_BATCH)
@body_limit(BATCH_LIMIT, keys=BATCH_KEYS)
async def report_usage(request: Request, reader: ReaderDep, commands: CommandsDep) -> UsageReply:
    """Counts up to 10,000 CloudEvents, each once by its source and ID, so a batch can be sent again.

    The reply names invalid events; the others are counted. Each transaction counts up to 2,000 events of one
    agency, so after an error, send the whole batch again.
    """
    return await usage_reports.report_usage(_batch(await request.body()), read=reader.read_own, write=commands.write)


@router.get(
    f"{PREFIX}/usage",
    summary="List usage",
    dependencies=[READ],
    responses=problem_responses(NotFound, PoolUnknown, FeatureUnknown),
)
async def list_usage(
    agency_id: AgencyId,
    feature: Annotated[str, Query(max_length=60, description="A feature of the catalog.")],
    reader: ReaderDep,
    runtime: RuntimeDep,
    page: PageDep,
    period_at: Annotated[
        WrittenInstant | None, Query(description="A past instant in the period to show. Default: now.")
    ] = None,
) -> Page[UsageSumReply]:
    """Shows the use of a feature in a period, by default the current one: first of all people, then of each person."""
    now = runtime.clock.now()
    if period_at is not None:
        require_past("period_at", period_at, now)
    async with reader.read(agency_id) as connection:
        return await queries.list_usage(connection, agency_id, feature, page, now, period_at or now)


@router.get(
    f"{PREFIX}/quota-grants",
    summary="List quota grants",
    dependencies=[READ],
    responses=problem_responses(NotFound),
)
async def list_quota_grants(agency_id: AgencyId, reader: ReaderDep, page: PageDep) -> Page[QuotaGrantReply]:
    async with reader.read(agency_id) as connection:
        return await queries.list_quota_grants(connection, agency_id, page)


@router.post(
    f"{PREFIX}/quota-grants",
    summary="Add a quota grant",
    dependencies=[OPERATE],
    status_code=201,
    response_model=QuotaGrantReply,
    responses=problem_responses(NotFound, PoolUnknown, FeatureUnknown, QuotaGrantsFull, GrantsFull),
)
async def grant_quota(
    agency_id: AgencyId, body: QuotaGrantRequest, commands: CommandsDep, directory: DirectoryDep
) -> Response:
    """Grants uses that are spent once the quota is used up."""
    subject_ref = None if body.subject is None else directory.subject_ref(agency_id, body.subject)
    facts = body.model_dump(exclude={"subject"})
    command = GrantQuota(agency_id=agency_id, subject_ref=subject_ref, **facts)
    return await commands.execute(agency_id, partial(quota_grants.grant_quota, command=command), status_code=201)


def _batch(body: bytes) -> list[Any]:
    """The events of a batch. Raises MalformedJson or InvalidInput."""
    try:
        events = json.loads(body, parse_int=_whole)
    except JSONDecodeError as fault:
        raise MalformedJson(fault.pos, fault.msg) from None
    except UnicodeDecodeError as fault:
        raise MalformedJson(fault.start, "it is not UTF-8", unit="byte") from None
    if not isinstance(events, list) or not 1 <= len(events) <= MOST_EVENTS:
        given = f"{len(events)} events" if isinstance(events, list) and events else events
        raise InvalidInput("body", given, f"must be a list of 1 to {MOST_EVENTS} CloudEvents")
    return events


def _whole(digits: str) -> int | Decimal:
    """A whole number of any length. Python parses no int of over 4,300 digits, but one must not fail a whole batch."""
    try:
        return int(digits)
    except ValueError:
        return Decimal(digits)
