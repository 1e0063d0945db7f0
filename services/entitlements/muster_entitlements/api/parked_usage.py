"""The operators' routes for usage records that could not be counted."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from muster_contracts.entitlements import FeatureUsed
from muster_entitlements.api.parameters import OPERATE
from muster_entitlements.commands import DiscardParkedUsage
from muster_entitlements.handlers import parked_usage
from muster_entitlements.queries import usage as queries
from muster_entitlements.replies.usage import DiscardedUsageReply, ParkedUsageReply
from muster_runtime.http.application import EVERY_AGENCY, PageDep, RequestBody, RuntimeDep, WrittenReason
from muster_runtime.http.problem_responses import COMMON
from muster_runtime.observability import personal_reads
from muster_runtime.operations.commands import OperatorCommandsDep
from muster_runtime.pagination import Page

router = APIRouter(prefix="/v1/usage/parked", tags=["usage"], dependencies=[OPERATE], responses=COMMON)

MOST_DISCARDED = 500


class DiscardRequest(RequestBody):
    """The records to discard, and the reason, which the audit trail keeps."""

    ids: list[Annotated[int, Field(strict=True, ge=1, lt=2**63)]] = Field(min_length=1, max_length=MOST_DISCARDED)
    reason: WrittenReason


@router.get("", summary="List parked usage")
async def list_parked_usage(request: Request, runtime: RuntimeDep, page: PageDep) -> Page[ParkedUsageReply]:
    """Records of the usage topic that could not be counted, oldest first.

    They may contain addresses by mistake, so the read is recorded.
    """
    route, context = f"GET {router.prefix}", request.state.context
    async with personal_reads.reading(runtime.database, EVERY_AGENCY, route, context) as read:
        found = await queries.list_parked_usage(read.connection, page)
        read.saw(f"{FeatureUsed.topic}/{record.partition}/{record.offset}" for record in found.items)
    return found


@router.post("/discard", summary="Discard parked usage", response_model=DiscardedUsageReply)
async def discard_parked_usage(body: DiscardRequest, commands: OperatorCommandsDep) -> Response:
    """Discards records permanently. Their producer can send corrected events, under the same IDs."""
    # The worker role's commands: only that role may see records that may not name an agency.
    command = DiscardParkedUsage(tuple(body.ids), body.reason)
    return await commands.execute(EVERY_AGENCY, partial(parked_usage.discard_parked_usage, command=command))
