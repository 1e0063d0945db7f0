"""The routes of windows: list them, and change one by a decision, which has a preview."""

from collections.abc import Callable
from functools import partial

from fastapi import APIRouter, Response
from pydantic import Field, model_validator

from muster_contracts import AgencyId
from muster_entitlements import queries
from muster_entitlements.api.parameters import APPROVAL_DAYS, OPERATE, PREFIX, READ, AsOfDep, WindowId, WrittenDay
from muster_entitlements.commands import CorrectWindowStart, EndWindow, ExtendWindow
from muster_entitlements.domain import windows as rules
from muster_entitlements.domain.windows import End, Start
from muster_entitlements.errors import (
    PoolUnknown,
    WindowExtendedAlready,
    WindowOver,
    WindowUnknown,
    WindowWithoutTrial,
)
from muster_entitlements.handlers import windows
from muster_entitlements.replies import WindowPreviewReply, WindowReply
from muster_runtime.errors import NotFound
from muster_runtime.http.application import (
    PROPOSED,
    CommandsDep,
    ReaderDep,
    RequestBody,
    RuntimeDep,
    WrittenInstant,
    WrittenReason,
    needs_approval,
)
from muster_runtime.http.approvals import ProposalOutdated, TooManyProposals
from muster_runtime.http.problem_responses import COMMON, problem_responses
from muster_runtime.pagination import Page

router = APIRouter(prefix=PREFIX, tags=["windows"], responses=COMMON)

_REFUSALS = problem_responses(NotFound, PoolUnknown, WindowUnknown, WindowWithoutTrial, WindowOver)
_EXTENSION_REFUSALS = problem_responses(
    NotFound,
    PoolUnknown,
    WindowUnknown,
    WindowWithoutTrial,
    WindowOver,
    WindowExtendedAlready,
    ProposalOutdated,
    TooManyProposals,
)


class _Decision(RequestBody):
    reason: WrittenReason = Field(description="For the audit trail.")


class ExtensionRequest(_Decision):
    """The new end: an instant, or the last day in the agency's time zone."""

    ends_at: WrittenInstant | None = None
    ends_on: WrittenDay | None = Field(default=None, examples=["2025-11-04"])

    @model_validator(mode="after")
    def _one_end(self) -> "ExtensionRequest":
        if (self.ends_at is None) == (self.ends_on is None):
            raise ValueError("must have either ends_at or ends_on")
        return self


class WindowEndRequest(_Decision):
    """The new end: an instant, or the last day in the agency's time zone. If neither is set, it ends now."""

    ends_at: WrittenInstant | None = None
    ends_on: WrittenDay | None = Field(default=None, examples=["2025-09-15"])

    @model_validator(mode="after")
    def _at_most_one_end(self) -> "WindowEndRequest":
        if self.ends_at is not None and self.ends_on is not None:
            raise ValueError("must not have both ends_at and ends_on")
        return self


class WindowStartRequest(_Decision):
    """The correct start: an instant, or the first day in the agency's time zone. The window keeps its length."""

    starts_at: WrittenInstant | None = None
    starts_on: WrittenDay | None = Field(default=None, examples=["2025-08-13"])

    @model_validator(mode="after")
    def _one_start(self) -> "WindowStartRequest":
        if (self.starts_at is None) == (self.starts_on is None):
            raise ValueError("must have either starts_at or starts_on")
        return self


@router.get("/windows", summary="List feature windows", dependencies=[READ])
async def list_windows(
    agency_id: AgencyId, reader: ReaderDep, runtime: RuntimeDep, as_of: AsOfDep
) -> Page[WindowReply]:
    """With `at`, lists the windows of a past instant, with their starts and ends as known now."""
    async with reader.read(agency_id, of_one_state=as_of is not None) as connection:
        if as_of is not None:
            return await queries.list_past_windows(connection, agency_id, as_of)
        return await queries.list_windows(connection, agency_id, runtime.clock.now())


@router.post(
    "/windows/{window_id}/extension",
    summary="Extend a trial",
    dependencies=[OPERATE],
    response_model=WindowReply,
    responses=_EXTENSION_REFUSALS | PROPOSED,
)
@needs_approval(days=APPROVAL_DAYS, revision=windows.find_revision)
async def extend_window(
    agency_id: AgencyId, window_id: WindowId, body: ExtensionRequest, commands: CommandsDep
) -> Response:
    """A trial can be extended once, up to the end of the term."""
    command = ExtendWindow(agency_id, window_id, End(body.ends_at, body.ends_on), body.reason)
    return await commands.execute(agency_id, partial(windows.extend_window, command=command))


@router.post(
    "/windows/{window_id}/end",
    summary="End a trial early",
    dependencies=[OPERATE],
    response_model=WindowReply,
    responses=_REFUSALS,
)
async def end_window(
    agency_id: AgencyId, window_id: WindowId, body: WindowEndRequest, commands: CommandsDep
) -> Response:
    """From then on, the access that the catalog defines for after the trial applies."""
    command = EndWindow(agency_id, window_id, End(body.ends_at, body.ends_on), body.reason)
    return await commands.execute(agency_id, partial(windows.end_window, command=command))


@router.post(
    "/windows/{window_id}/start",
    summary="Correct the start of a trial",
    dependencies=[OPERATE],
    response_model=WindowReply,
    responses=problem_responses(
        NotFound, PoolUnknown, WindowUnknown, WindowWithoutTrial, WindowOver, ProposalOutdated, TooManyProposals
    )
    | PROPOSED,
)
@needs_approval(days=APPROVAL_DAYS, revision=windows.find_revision)
async def correct_window_start(
    agency_id: AgencyId, window_id: WindowId, body: WindowStartRequest, commands: CommandsDep
) -> Response:
    """The end moves with the start."""
    command = CorrectWindowStart(agency_id, window_id, Start(body.starts_at, body.starts_on), body.reason)
    return await commands.execute(agency_id, partial(windows.correct_window_start, command=command))


@router.post(
    "/windows/{window_id}/extension/preview",
    summary="Preview the extension of a trial",
    dependencies=[OPERATE],
    responses=_REFUSALS,
)
async def preview_extension(
    agency_id: AgencyId, window_id: WindowId, body: ExtensionRequest, reader: ReaderDep, runtime: RuntimeDep
) -> WindowPreviewReply:
    """Shows who would be affected and what would be published, and changes nothing."""
    change = partial(rules.extend, end=End(body.ends_at, body.ends_on))
    return await _preview(agency_id, window_id, change, reader, runtime)


@router.post(
    "/windows/{window_id}/end/preview",
    summary="Preview the early end of a trial",
    dependencies=[OPERATE],
    responses=_REFUSALS,
)
async def preview_end(
    agency_id: AgencyId, window_id: WindowId, body: WindowEndRequest, reader: ReaderDep, runtime: RuntimeDep
) -> WindowPreviewReply:
    """Shows who would be affected and what would be published, and changes nothing."""
    change = partial(rules.end_early, end=End(body.ends_at, body.ends_on))
    return await _preview(agency_id, window_id, change, reader, runtime)


@router.post(
    "/windows/{window_id}/start/preview",
    summary="Preview the correction of a trial's start",
    dependencies=[OPERATE],
    responses=_REFUSALS,
)
async def preview_start(
    agency_id: AgencyId, window_id: WindowId, body: WindowStartRequest, reader: ReaderDep, runtime: RuntimeDep
) -> WindowPreviewReply:
    """Shows who would be affected and what would be published, and changes nothing."""
    change = partial(rules.correct_start, start=Start(body.starts_at, body.starts_on))
    return await _preview(agency_id, window_id, change, reader, runtime)


async def _preview(
    agency_id: str, window_id: str, change: Callable[..., rules.Window], reader: ReaderDep, runtime: RuntimeDep
) -> WindowPreviewReply:
    async with reader.read(agency_id) as connection:
        return await queries.preview_change(connection, agency_id, window_id, change, runtime.clock.now())
