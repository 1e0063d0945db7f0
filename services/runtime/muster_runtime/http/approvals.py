"""Commands that need a second person: a request becomes a proposal, and another person's approval runs it.

An approved request goes through its route again, with the approver's rights, with both people named as the actor, and
with the proposal's ID as its Idempotency-Key. So it is authorized, validated, and executed like any other request, and
only once.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, Field

from muster_contracts import Instant
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import Conflict
from muster_runtime.http.idempotency import InvalidIdempotencyKey, Key
from muster_runtime.identifiers import new_id
from muster_runtime.observability import audit
from muster_runtime.scheduling import proposals
from muster_runtime.scheduling.proposals import Proposal, ProposalState

_ID_PREFIX = "prp"

# How many proposals may wait for one path: each keeps its body until it is decided or expires.
MAX_PENDING = 20

E = TypeVar("E", bound=Callable[..., Any])

# Reads the current revision of what a command changes: it takes the connection and the parameters of the route's path.
Revision = Callable[..., Awaitable[int]]


class ProposalDecided(Conflict):
    """The proposal is decided, or has expired."""

    slug = "proposal-decided"
    title = "The proposal is no longer pending"

    def __init__(self, proposal_id: str, state: str) -> None:
        super().__init__(f"proposal {proposal_id} is {state}; only a pending one can be decided", reason=state)


class ProposalOutdated(Conflict):
    """The resource has changed since the request was proposed."""

    slug = "proposal-outdated"
    title = "The proposal is outdated"

    def __init__(self, proposal_id: str, seen: int, current: int) -> None:
        super().__init__(
            f"proposal {proposal_id} is for revision {seen} of what it would change, which has changed since: "
            "look at it, and propose the request again if it is still wanted",
            seen=seen,
            current=current,
        )


class TooManyProposals(Conflict):
    """As many proposals as allowed wait for one path."""

    slug = "too-many-proposals"
    title = "Too many proposals are pending"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{MAX_PENDING} proposals for {path} are pending: approve or reject one of them first", most=MAX_PENDING
        )


class ProposalReply(BaseModel):
    """A request that is waiting for a second person, was decided, or has expired."""

    proposal_id: str
    agency_id: str
    state: ProposalState
    route: str = Field(examples=["POST /v1/agencies/{agency_id}/windows/{window_id}/extension"])
    path: str
    revision: int = Field(description="The revision of the resource to change, when the request was proposed.")
    outdated: bool = Field(
        description="Whether the resource has changed since, so that a pending proposal can no longer be approved; "
        "false once it is decided or has expired."
    )
    proposed_by: str
    proposed_at: Instant
    expires_at: Instant
    decided_by: str | None
    decided_at: Instant | None
    reason: str | None

    @classmethod
    def of(cls, proposal: Proposal, *, outdated: bool = False) -> "ProposalReply":
        """The reply for a proposal, without its body."""
        names = ProposalReply.model_fields.keys() - {"outdated"}
        return cls(**{name: getattr(proposal, name) for name in names}, outdated=outdated)


# The response of a route that needs approval, for its OpenAPI.
PROPOSED: dict[int | str, dict[str, Any]] = {
    202: {"model": ProposalReply, "description": "Proposed: the request runs when another person approves it."}
}


@dataclass(frozen=True, slots=True)
class Approval:
    """How a route's command is approved: within this time, and unless the revision has changed since the proposal."""

    within: timedelta
    revision: Revision


def needs_approval(*, days: int, revision: Revision) -> Callable[[E], E]:
    """Make a route's command run only after a second person with the route's scope approves it.

    Put it between the route's decorator and the function. The function calls `commands.execute` once. A proposal
    expires after `days` days. `revision` reads the revision of what the command changes.
    """

    def mark(endpoint: E) -> E:
        endpoint.approval = Approval(timedelta(days=days), revision)  # type: ignore[attr-defined]
        return endpoint

    return mark


def approval_of(endpoint: object) -> Approval | None:
    """How a route's command is approved; None if it needs no approval."""
    approval: Approval | None = getattr(endpoint, "approval", None)
    return approval


@dataclass(frozen=True, slots=True)
class SecondPerson:
    """A request whose command needs a second person: it becomes a proposal, or it is an approved one."""

    request: Request
    approval: Approval

    async def before_command(
        self, uow: UnitOfWork, agency_id: str, handler: Callable[[UnitOfWork], Awaitable[object]]
    ) -> ProposalReply | None:
        """Store the approval (None: the command runs now), or else the proposal.

        Raises ProposalDecided, ProposalOutdated, TooManyProposals, and whatever the handler raises if it runs now.
        """
        revision = await self.approval.revision(uow.connection, **self.request.path_params)
        approving: Approving | None = getattr(self.request.state, "approving", None)
        if approving is None:
            return await self._propose(uow, agency_id, handler, revision)
        await approving.approve(uow, revision)
        return None

    async def _propose(
        self, uow: UnitOfWork, agency_id: str, handler: Callable[[UnitOfWork], Awaitable[object]], revision: int
    ) -> ProposalReply:
        request, scope = self.request, self.request.scope
        if await proposals.count_pending(uow.connection, agency_id, scope["path"]) >= MAX_PENDING:
            raise TooManyProposals(scope["path"])
        await _rehearse(uow, handler)
        proposal = Proposal(
            proposal_id=new_id(_ID_PREFIX, uow.now),
            agency_id=agency_id,
            state=ProposalState.PENDING,
            route=f"{request.method} {scope['route'].path}",
            method=request.method,
            path=scope["path"],
            query=scope["query_string"].decode("latin-1"),
            content_type=request.headers.get("content-type"),
            if_match=request.headers.get("if-match"),
            body=await request.body(),
            revision=revision,
            proposed_by=request.state.identity.actor,
            proposed_at=uow.now,
            expires_at=uow.now + self.approval.within,
        )
        await proposals.add_proposal(uow, proposal)
        audit.record(
            uow,
            command="Propose",
            agency_id=agency_id,
            subject=proposal.proposal_id,
            after={"route": proposal.route, "path": proposal.path, "revision": revision},
        )
        return ProposalReply.of(proposal)


@dataclass(frozen=True, slots=True)
class Approving:
    """An approved request that goes through its route again."""

    proposal_id: str
    approved_by: str

    async def approve(self, uow: UnitOfWork, revision: int) -> None:
        """Store the approval in the transaction that executes the request.

        Raises ProposalDecided, or ProposalOutdated if what it would change has another revision now.
        """
        proposal = await _pending(uow, self.proposal_id)
        if revision != proposal.revision:
            raise ProposalOutdated(proposal.proposal_id, proposal.revision, revision)
        await _save_decision(uow, proposal, "ApproveProposal", ProposalState.APPROVED, self.approved_by)


async def reject(uow: UnitOfWork, proposal_id: str, rejected_by: str, reason: str) -> ProposalReply:
    """Store the rejection. It does not use the route, which may no longer accept the request.

    Raises ProposalDecided.
    """
    proposal = await _pending(uow, proposal_id)
    await _save_decision(uow, proposal, "RejectProposal", ProposalState.REJECTED, rejected_by, reason)
    rejected = await proposals.find_proposal(uow.connection, proposal_id)
    assert rejected is not None
    return ProposalReply.of(rejected)


async def _pending(uow: UnitOfWork, proposal_id: str) -> Proposal:
    proposal = await proposals.find_proposal(uow.connection, proposal_id)
    assert proposal is not None  # it was read before, and proposals are never deleted
    if proposal.state is not ProposalState.PENDING:
        raise ProposalDecided(proposal.proposal_id, proposal.state)
    if uow.now >= proposal.expires_at:
        raise ProposalDecided(proposal.proposal_id, ProposalState.EXPIRED)
    return proposal


async def _save_decision(
    uow: UnitOfWork,
    proposal: Proposal,
    command: str,
    state: ProposalState,
    decided_by: str,
    reason: str | None = None,
) -> None:
    await proposals.save_decision(uow, proposal, state, decided_by, reason)
    audit.record(
        uow,
        command=command,
        agency_id=proposal.agency_id,
        subject=proposal.proposal_id,
        before={"route": proposal.route, "path": proposal.path, "proposed_by": proposal.proposed_by},
        after={"state": state, "decided_by": decided_by},
        reason=reason,
    )


def second_person_of(request: Request) -> SecondPerson | None:
    """The second person whom a request's command needs; None if its route needs no approval."""
    approval = approval_of(request.scope.get("endpoint"))
    return None if approval is None else SecondPerson(request, approval)


def key_of(request: Request, idempotency_key: str | None) -> Key | None:
    """The key of a request, if it has one. Raises InvalidIdempotencyKey, also if a caller's could be a proposal's ID.

    An approval stores its reply under the proposal's ID. If a caller had used that key before, the approval would find
    the caller's reply, and the command would not run.
    """
    if idempotency_key is None:
        return None
    if idempotency_key.startswith(f"{_ID_PREFIX}_") and getattr(request.state, "approving", None) is None:
        raise InvalidIdempotencyKey(f"Idempotency-Key must not begin with {_ID_PREFIX}_, as a proposal's id does")
    return Key(idempotency_key, request)


class _Undone(Exception):
    """Rolls back a rehearsal."""


async def _rehearse(uow: UnitOfWork, handler: Callable[[UnitOfWork], Awaitable[object]]) -> None:
    """Execute a command and roll it back, so that whatever would refuse the command refuses its proposal."""
    try:
        async with uow.connection.transaction():
            await handler(UnitOfWork(uow.connection, uow.agencies, uow.now, uow.context))
            raise _Undone
    except _Undone:
        pass
