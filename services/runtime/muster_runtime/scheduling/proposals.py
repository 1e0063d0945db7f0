"""Proposals: requests that are stored until a second person decides on them or they expire."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from muster_runtime.database.transactions import Connection, UnitOfWork
from muster_runtime.observability import audit
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline

PROPOSAL_EXPIRED = "proposal-expired"


class ProposalState(StrEnum):
    """The state of a proposal."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A request and its decision.

    `route` is the method and the path's template. `revision` is the revision of what the request changes, as of the
    proposal. `body` is None in a list, and once the proposal is decided or has expired.
    """

    proposal_id: str
    agency_id: str
    state: ProposalState
    route: str
    method: str
    path: str
    query: str
    content_type: str | None
    if_match: str | None
    revision: int
    proposed_by: str
    proposed_at: datetime
    expires_at: datetime
    body: bytes | None = None
    decided_by: str | None = None
    decided_at: datetime | None = None
    reason: str | None = None


# Without the body, which may be large.
_COLUMNS = """
    proposal_id, agency_id, state, route, method, path, query, content_type, if_match, revision,
    proposed_by, proposed_at, expires_at, decided_by, decided_at, reason
"""


async def add_proposal(uow: UnitOfWork, proposal: Proposal) -> None:
    """Store a pending proposal until it is decided or expires."""
    await uow.connection.execute(
        """
        insert into proposal (
            proposal_id, agency_id, state, route, method, path, query, content_type, if_match, body, revision,
            proposed_by, proposed_at, expires_at
        )
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        """,
        proposal.proposal_id,
        proposal.agency_id,
        proposal.state,
        proposal.route,
        proposal.method,
        proposal.path,
        proposal.query,
        proposal.content_type,
        proposal.if_match,
        proposal.body,
        proposal.revision,
        proposal.proposed_by,
        proposal.proposed_at,
        proposal.expires_at,
    )
    deadlines.schedule(uow, [Deadline(PROPOSAL_EXPIRED, proposal.agency_id, proposal.proposal_id, proposal.expires_at)])


async def find_proposal(connection: Connection, proposal_id: str) -> Proposal | None:
    """A proposal, if the transaction may see it."""
    row = await connection.fetchrow(
        f"select {_COLUMNS}, body from proposal where proposal_id = $1",  # noqa: S608
        proposal_id,
    )
    return None if row is None else _to_proposal(row)


async def list_proposals(
    connection: Connection, state: ProposalState | None, after: str | None, limit: int
) -> list[Proposal]:
    """The proposals that the transaction may see, without their bodies, oldest first."""
    rows = await connection.fetch(
        f"""
        select {_COLUMNS}
        from proposal
        where proposal_id > $1 and ($2::text is null or state = $2)
        order by proposal_id
        limit $3
        """,  # noqa: S608
        after or "",
        state,
        limit,
    )
    return [_to_proposal(row) for row in rows]


async def count_pending(connection: Connection, agency_id: str, path: str) -> int:
    """How many proposals of an agency wait to change what has this path."""
    count: int = await connection.fetchval(
        """
        select count(*)
        from proposal
        where agency_id = $1 and path = $2 and state = 'pending'
        """,
        agency_id,
        path,
    )
    return count


def _to_proposal(columns: Mapping[str, Any]) -> Proposal:
    return Proposal(**{**columns, "state": ProposalState(columns["state"])})


async def save_decision(
    uow: UnitOfWork, proposal: Proposal, state: ProposalState, decided_by: str, reason: str | None
) -> None:
    """Store the decision on a pending proposal, and delete its body."""
    await uow.connection.execute(
        """
        update proposal
        set state = $2, decided_by = $3, decided_at = $4, reason = $5, body = null
        where proposal_id = $1 and state = 'pending'
        """,
        proposal.proposal_id,
        state,
        decided_by,
        uow.now,
        reason,
    )
    deadlines.cancel(uow, proposal.agency_id, PROPOSAL_EXPIRED, [proposal.proposal_id])


async def on_proposal_expired_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Expire proposals that nobody decided on."""
    rows = await uow.connection.fetch(
        """
        update proposal
        set state = 'expired', decided_at = expires_at, body = null
        where proposal_id = any($1::text[]) and state = 'pending'
        returning proposal_id, agency_id, route
        """,
        [deadline.subject for deadline in due],
    )
    for row in rows:
        audit.record(
            uow,
            command="ExpireProposal",
            agency_id=row["agency_id"],
            subject=row["proposal_id"],
            before={"state": ProposalState.PENDING, "route": row["route"]},
            after={"state": ProposalState.EXPIRED},
        )
