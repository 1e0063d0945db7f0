"""Deadlines: those that are parked, and the hold on all of them after a restore."""

from dataclasses import asdict

import structlog
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from muster_contracts import Instant
from muster_runtime.database.transactions import EVERY_AGENCY, RETRYABLE, UnitOfWork
from muster_runtime.errors import Conflict, NotFound, describe
from muster_runtime.http.application import RuntimeDep
from muster_runtime.http.auth import requires_program
from muster_runtime.http.idempotency import IdempotencyMismatch
from muster_runtime.http.pagination import PageDep
from muster_runtime.http.problem_responses import COMMON, problem_responses
from muster_runtime.http.request_rules import RequestBody, WrittenInstant
from muster_runtime.observability import audit
from muster_runtime.operations.commands import OperatorCommandsDep
from muster_runtime.operations.parked import Reason, ReplayReply
from muster_runtime.pagination import Page
from muster_runtime.scheduling import deadlines, hold, scheduler
from muster_runtime.scheduling.deadlines import Deadline, ParkedDeadline
from muster_runtime.scheduling.proposals import PROPOSAL_EXPIRED

_log = structlog.get_logger(__name__)


class DeadlineName(RequestBody):
    """Names a deadline. The instant distinguishes it from a later one of the same subject."""

    kind: str = Field(max_length=100)
    agency_id: str = Field(max_length=100)
    subject: str = Field(max_length=500)
    due_at: WrittenInstant

    @property
    def deadline(self) -> Deadline:
        return Deadline(self.kind, self.agency_id, self.subject, self.due_at)


class DiscardDeadline(DeadlineName, Reason):
    """A deadline to discard, and the reason."""


class ParkedDeadlineReply(BaseModel):
    """A deadline that could not be handled."""

    kind: str
    agency_id: str
    subject: str
    due_at: Instant
    parked_at: Instant
    reason: str


class Hold(BaseModel):
    """Since when the service's deadlines are held, if they are."""

    held_since: Instant | None


def deadlines_router(service: str) -> APIRouter:
    """The routes. They act for the whole program, so they require a token for all agencies."""
    scope = requires_program(f"{service}:operate")
    router = APIRouter(prefix="/v1", tags=["parked"], dependencies=[scope], responses=COMMON)

    @router.get("/parked-deadlines")
    async def list_parked_deadlines(runtime: RuntimeDep, page: PageDep) -> Page[ParkedDeadlineReply]:
        async with runtime.database.read(EVERY_AGENCY) as connection:
            parked = sorted(await deadlines.parked_deadlines(connection), key=_key)
        rest = [deadline for deadline in parked if page.after is None or _key(deadline) > page.after]
        return page.make([ParkedDeadlineReply(**asdict(deadline)) for deadline in rest], key=_key)

    @router.post("/parked-deadlines/retry", response_model=ReplayReply, responses=problem_responses(DeadlinesHeld))
    async def retry_parked_deadline(commands: OperatorCommandsDep, runtime: RuntimeDep, body: DeadlineName) -> Response:
        """Handle the deadline now, as of its due time. If that fails again, the deadline stays parked.

        While the service handles no deadlines, after a restore or a failover, the request gets 409, which says what
        to do first. With an Idempotency-Key, only the reply to a success is stored, so a failed retry can be repeated.
        """
        deadline = body.deadline

        async def handler(uow: UnitOfWork) -> ReplayReply:
            doubt = await hold.find_doubt(uow.connection)
            if why := doubt.why_deadlines_wait(service):
                raise DeadlinesHeld(f"{why}: retry this one afterward")
            await _take(uow, deadline)
            await scheduler.handle(uow, runtime.service.deadline_handlers, [deadline], service)
            _note(uow, "RetryParkedDeadline", deadline)
            return ReplayReply(parked=False, reason=None)

        try:
            return await commands.execute(deadline.agency_id, handler)
        except (*RETRYABLE, DeadlinesHeld, NotParked, IdempotencyMismatch):
            raise
        except Exception as error:
            _log.warning("retry_refused", kind=deadline.kind, agency_id=deadline.agency_id, exc_info=error)
            reason = describe(error)
            async with commands.write(deadline.agency_id) as uow:
                await deadlines.note_reason(uow, deadline, reason)
            return JSONResponse(ReplayReply(parked=True, reason=reason).model_dump())

    @router.post("/parked-deadlines/discard", status_code=204, responses=problem_responses(DeadlineRequired))
    async def discard_parked_deadline(
        commands: OperatorCommandsDep, runtime: RuntimeDep, body: DiscardDeadline
    ) -> Response:
        """Discard the deadline permanently: it never takes effect.

        A deadline of a kind that schedules its own successor or deletes data gets 409: fix the cause, then retry it.
        """

        async def handler(uow: UnitOfWork) -> None:
            await _take(uow, body.deadline)
            if body.kind in {*runtime.service.required_deadlines, PROPOSAL_EXPIRED}:
                raise DeadlineRequired(body.kind)
            _note(uow, "DiscardParkedDeadline", body.deadline, body.reason)

        return await commands.execute(body.agency_id, handler, status_code=204)

    @router.get("/deadlines/hold")
    async def retrieve_hold(runtime: RuntimeDep) -> Hold:
        """Since when deadlines are held, because the database lost commits; null if they are not held.

        After a restart of Postgres, they also wait until the relay has looked for lost commits: readiness warns.
        """
        async with runtime.database.read(EVERY_AGENCY) as connection:
            return Hold(held_since=await hold.held_since(connection))

    @router.post("/deadlines/release", response_model=Hold, responses=problem_responses(hold.NotReleased))
    async def release_deadlines(commands: OperatorCommandsDep, body: Reason) -> Response:
        """Let the service handle its deadlines again, once its facts are right after a restore. Safe to repeat.

        While commits may be lost, it is refused with 409, which says what to do first. The reply says since when the
        deadlines were held; null if they were not.
        """

        async def handler(uow: UnitOfWork) -> Hold:
            return Hold(held_since=await hold.release(uow, body.reason))

        return await commands.execute(EVERY_AGENCY, handler)

    return router


class NotParked(NotFound):
    """The deadline was already handled, moved, or discarded."""


class DeadlinesHeld(Conflict):
    """The facts are in doubt, so a handler could do the wrong thing, or nothing, and would use up the deadline."""

    slug = "deadlines-held"
    title = "The service handles no deadlines now"


class DeadlineRequired(Conflict):
    """Without the deadline, recurring work would stop, or data would never be deleted."""

    slug = "deadline-required"
    title = "The deadline must take effect"

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"a deadline of the kind {kind!r} cannot be discarded: the work that it continues would never be done; "
            "fix the cause, then retry it"
        )


async def _take(uow: UnitOfWork, deadline: Deadline) -> None:
    taken = await uow.connection.fetchval(
        """
        delete from deadline
        where kind = $1 and agency_id = $2 and subject = $3 and due_at = $4 and parked_at is not null
        returning true
        """,
        deadline.kind,
        deadline.agency_id,
        deadline.subject,
        deadline.due_at,
    )
    if not taken:
        raise NotParked(f"no deadline {deadline.kind!r} of {deadline.subject!r} is parked in {deadline.agency_id!r}")


def _note(uow: UnitOfWork, command: str, deadline: Deadline, reason: str | None = None) -> None:
    audit.record(
        uow,
        command=command,
        agency_id=deadline.agency_id,
        subject=f"{deadline.kind}/{deadline.subject}",
        before={"due_at": deadline.due_at},
        reason=reason,
    )


def _key(deadline: ParkedDeadline | ParkedDeadlineReply) -> str:
    return f"{deadline.agency_id}/{deadline.kind}/{deadline.subject}"
