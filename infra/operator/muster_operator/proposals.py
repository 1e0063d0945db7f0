"""`muster proposals`: shows the requests that wait for a second person, and decides on them."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Group
from rich.json import JSON
from rich.markup import escape

from muster_operator.failures import NotFound
from muster_operator.group import group
from muster_operator.options import ServiceOption
from muster_operator.output import Answer, facts, table
from muster_operator.parked import Reason
from muster_operator.service import Service, every_item
from muster_operator.target import Target, on_target

app = group("List, show, approve, and reject proposals: requests that need a second person.")

PATH = "/v1/proposals"

# The request that publishes the draft of the feature catalog.
CATALOG_PUBLICATION = "/v1/catalog/draft/publication"


class State(StrEnum):
    """The state of a proposal."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"


ProposalId = Annotated[str, typer.Argument(help="The proposal's ID, as `list` prints it.")]


@app.command("list")
@on_target()
async def list_(
    target: Target,
    state: Annotated[State, typer.Option("--state", help="Only proposals in this state.")] = State.PENDING,
    service: ServiceOption = None,
) -> Answer:
    """List the proposals that wait for a second person, or those in another state, oldest first."""
    async with target.services(service, scopes=_scopes(target, "read")) as services:
        found = await every_item(services, PATH, state=state.value)
    fields = ("proposal_id", "agency_id", "path", "proposed_by", "proposed_at", "expires_at")
    rows = [
        (each.name, *(escape(item[field]) for field in fields), "yes" if _is_outdated(item) else "no")
        for each, item in found
    ]
    shown = table(("service", "proposal", "agency", "request", "by", "at", "expires", "outdated"), rows)
    return Answer(
        {"items": [{"service": each.name, **item} for each, item in found]},
        shown if found else f"No proposal is {state.value}.",
    )


@app.command()
@on_target()
async def show(target: Target, proposal: ProposalId, service: ServiceOption = None) -> Answer:
    """Show a proposal and the body of its request."""
    async with target.services(service, scopes=_scopes(target, "read")) as services:
        each, found = await _find(services, proposal)
    about = facts({name: value for name, value in found.items() if name != "body"})
    return Answer({"service": each.name, **found}, Group(about, "", _body(found)))


@app.command()
@on_target()
async def approve(target: Target, proposal: ProposalId, service: ServiceOption = None) -> Answer:
    """Approve another person's proposal, which runs it at once."""
    async with target.services(service, scopes=_scopes(target, "read", "operate")) as services:
        each, found = await _find(services, proposal)
        reply = await each.post(f"{_path(proposal)}/approval")
    said = f"{each.name}: {proposal} is approved and carried out: {found['route'].partition(' ')[0]} {found['path']}"
    return Answer(reply, escape(said))


@app.command()
@on_target()
async def reject(target: Target, proposal: ProposalId, reason: Reason, service: ServiceOption = None) -> Answer:
    """Reject a proposal, your own or another person's."""
    async with target.services(service, scopes=_scopes(target, "read", "operate")) as services:
        each, _ = await _find(services, proposal)
        reply = await each.post(f"{_path(proposal)}/rejection", {"reason": reason})
    return Answer({"service": each.name, **reply}, escape(f"{each.name}: {proposal} is rejected"))


def is_proposal(reply: Mapping[str, Any]) -> bool:
    """Whether a service stored a request for a second person instead of executing it."""
    return "proposal_id" in reply


def waiting(service: str, proposal: Mapping[str, Any]) -> str:
    """What a proposal waits for, and the command that approves it."""
    return escape(
        f"{service}: proposal {proposal['proposal_id']} waits until {proposal['expires_at']} for another person: "
        f"muster proposals approve {proposal['proposal_id']} --service {service}"
    )


def _body(proposal: Mapping[str, Any]) -> JSON | Group | str:
    body = None if proposal["body"] is None else JSON.from_data(proposal["body"])
    if proposal["path"] == CATALOG_PUBLICATION and proposal["state"] == State.PENDING:
        review = "It is for an earlier draft." if _is_outdated(proposal) else "Review it with `muster catalog draft`."
        return review if body is None else Group(body, "", review)
    return body or "It has no body, or the body was deleted."


def _is_outdated(proposal: Mapping[str, Any]) -> bool:
    """Whether a pending proposal can no longer be approved, because what it would change has changed."""
    return bool(proposal.get("outdated"))  # an earlier release does not report it


async def _find(services: Mapping[str, Service], proposal_id: str) -> tuple[Service, dict[str, Any]]:
    """A proposal and the service that has it. Raises NotFound."""
    for service in services.values():
        try:
            return service, await service.get(_path(proposal_id))
        except NotFound:
            continue
    raise NotFound(f"there is no proposal {proposal_id}")


def _path(proposal_id: str) -> str:
    return f"{PATH}/{quote(proposal_id, safe='')}"


def _scopes(target: Target, *actions: str) -> tuple[str, ...]:
    return tuple(f"{name}:{action}" for name in target.require("urls").urls for action in actions)
