"""The routes that list, retrieve, approve, and reject one service's proposals."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Path, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import Field
from starlette.types import Message, Scope

from muster_runtime.database.transactions import Connection
from muster_runtime.errors import NotFound, PermanentError, PreconditionFailed
from muster_runtime.http.approvals import (
    Approving,
    ProposalDecided,
    ProposalOutdated,
    ProposalReply,
    approval_of,
    reject,
)
from muster_runtime.http.auth import IdentityDep, check_access, requires
from muster_runtime.http.idempotency import find_reply
from muster_runtime.http.identity import Identity
from muster_runtime.http.pagination import PageDep
from muster_runtime.http.problem_responses import COMMON, problem_responses
from muster_runtime.http.request_rules import RequestBody, WrittenReason
from muster_runtime.http.tenancy import CommandsDep, KeyHeader, ReaderDep
from muster_runtime.pagination import Page
from muster_runtime.scheduling import proposals
from muster_runtime.scheduling.proposals import Proposal, ProposalState

ProposalId = Annotated[str, Path(pattern="^[A-Za-z0-9_-]{1,64}$", examples=["prp_01987b3e0000700080000000000000da"])]

# Scope entries that belong to the original request and the route that it matched.
_OWN = ("route", "router", "endpoint", "path_params", "fastapi", "fastapi_inner_astack", "fastapi_function_astack")


class OwnProposal(PermanentError):
    """The person who made a proposal cannot approve it."""

    status = 403
    slug = "own-proposal"
    title = "Another person must approve this"


class ProposalDetailReply(ProposalReply):
    """A proposal with its request."""

    query: str
    body: Any = Field(description="The request's body; null once the proposal is decided or has expired.")


class RejectionRequest(RequestBody):
    """Why a proposal is rejected."""

    reason: WrittenReason


@cache
def approval_router(service: str) -> APIRouter:
    """The routes of one service. A decision also needs the scope of the proposal's route."""
    router = APIRouter(
        prefix="/v1/proposals", tags=["proposals"], dependencies=[requires(f"{service}:read")], responses=COMMON
    )

    @router.get("", summary="List proposals")
    async def list_proposals(
        request: Request, reader: ReaderDep, page: PageDep, state: Annotated[ProposalState | None, Query()] = None
    ) -> Page[ProposalReply]:
        """Lists the proposals of every agency that the token acts for, oldest first."""
        async with reader.read_own(of_one_state=True) as connection:
            found = await proposals.list_proposals(connection, state, page.after, page.rows)
            outdated = await _outdated(request.app, connection, found)
        replies = [ProposalReply.of(proposal, outdated=proposal.proposal_id in outdated) for proposal in found]
        return page.make(replies, key=lambda reply: reply.proposal_id)

    @router.get("/{proposal_id}", summary="Retrieve a proposal", responses=problem_responses(NotFound))
    async def read_proposal(proposal_id: ProposalId, request: Request, reader: ReaderDep) -> ProposalDetailReply:
        async with reader.read_own(of_one_state=True) as connection:
            proposal = await _known(connection, proposal_id)
            outdated = await _outdated(request.app, connection, [proposal])
        reply = ProposalReply.of(proposal, outdated=bool(outdated))
        return ProposalDetailReply(**reply.model_dump(), query=proposal.query, body=_shown(proposal.body))

    @router.post(
        "/{proposal_id}/approval",
        summary="Approve a proposal",
        responses=problem_responses(NotFound, OwnProposal, ProposalDecided, ProposalOutdated, PreconditionFailed),
    )
    async def approve_proposal(
        proposal_id: ProposalId, request: Request, reader: ReaderDep, identity: IdentityDep, _key: KeyHeader = None
    ) -> Response:
        """Runs the proposed request and returns its response. Repeating the approval returns the same response."""
        async with reader.read_own() as connection:
            proposal = await _known(connection, proposal_id)
        if proposal.state is ProposalState.APPROVED:
            check_access(request, identity, proposal.route)
            async with reader.read(proposal.agency_id) as connection:
                kept = await find_reply(connection, proposal.agency_id, proposal_id)
            if kept is not None:
                return kept.response(replayed=True)
        if identity.actor == proposal.proposed_by:
            raise OwnProposal(f"{identity.actor} made proposal {proposal_id}; another person must approve it")
        return await _approve(request, identity, proposal)

    @router.post(
        "/{proposal_id}/rejection",
        summary="Reject a proposal",
        responses=problem_responses(NotFound, ProposalDecided),
    )
    async def reject_proposal(
        proposal_id: ProposalId,
        body: RejectionRequest,
        request: Request,
        reader: ReaderDep,
        commands: CommandsDep,
        identity: IdentityDep,
    ) -> ProposalReply:
        """The proposer can also reject it. Repeating the rejection changes nothing."""
        async with reader.read_own() as connection:
            proposal = await _known(connection, proposal_id)
        if proposal.state is ProposalState.REJECTED:
            return ProposalReply.of(proposal)
        check_access(request, identity, proposal.route)
        async with commands.write(proposal.agency_id) as uow:
            return await reject(uow, proposal_id, identity.actor, body.reason)

    return router


async def _known(connection: Connection, proposal_id: str) -> Proposal:
    proposal = await proposals.find_proposal(connection, proposal_id)
    if proposal is None:
        raise NotFound(f"there is no proposal {proposal_id!r}")
    return proposal


async def _outdated(app: FastAPI, connection: Connection, found: Sequence[Proposal]) -> set[str]:
    """The IDs of the pending proposals among these that can no longer be approved."""
    pending = [proposal for proposal in found if proposal.state is ProposalState.PENDING]
    current = {
        (route, path): await _revision(app, connection, route, path)
        for route, path in {(proposal.route, proposal.path) for proposal in pending}
    }
    return {
        proposal.proposal_id
        for proposal in pending
        if current[proposal.route, proposal.path] not in (None, proposal.revision)
    }


async def _revision(app: FastAPI, connection: Connection, proposed: str, path: str) -> int | None:
    """The current revision of what a proposed route changes; None if only another release has that route."""
    method, _, template = proposed.partition(" ")
    for route in app.routes:
        if isinstance(route, APIRoute) and route.path == template and method in (route.methods or ()):
            approval, matched = approval_of(route.endpoint), route.path_regex.match(path)
            return await approval.revision(connection, **matched.groupdict()) if approval and matched else None
    return None


def _shown(body: bytes | None) -> Any:
    """The body as JSON, if it is that."""
    try:
        return json.loads(body) if body else None
    except ValueError:
        return None


async def _approve(request: Request, identity: Identity, proposal: Proposal) -> Response:
    """Send the proposed request through its route again, which executes it."""
    if proposal.state is not ProposalState.PENDING:
        raise ProposalDecided(proposal.proposal_id, proposal.state)
    answer = _Answer(proposal.body or b"")
    await request.app.router(_scope(request, identity, proposal), answer.receive, answer.send)
    return answer.response()


def _scope(request: Request, identity: Identity, proposal: Proposal) -> Scope:
    headers = {
        "content-length": str(len(proposal.body or b"")),
        "content-type": proposal.content_type,
        "if-match": proposal.if_match,
        "idempotency-key": proposal.proposal_id,
    }
    context = replace(request.state.context, actor=f"{proposal.proposed_by}, approved by {identity.actor}")
    return {
        **{name: value for name, value in request.scope.items() if name not in _OWN},
        "method": proposal.method,
        "path": proposal.path,
        "raw_path": proposal.path.encode(),
        "query_string": proposal.query.encode("latin-1"),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items() if value is not None],
        "state": {
            **request.scope["state"],
            "context": context,
            "approving": Approving(proposal.proposal_id, identity.actor),
        },
    }


class _Answer:
    """The request body that a route receives, and the response that it sends."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._start: Message = {}
        self._content = b""

    async def receive(self) -> Message:
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        else:
            self._content += message.get("body", b"")

    def response(self) -> Response:
        """The route's response, to return as the response to the approval."""
        response = Response(self._content, self._start["status"])
        response.raw_headers = list(self._start["headers"])
        return response
