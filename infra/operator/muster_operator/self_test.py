"""`muster self-test`: sends a real command, whose event every reader must apply."""

import asyncio
import time
import uuid
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from muster_contracts import Position, topics
from muster_contracts.enrollment import AtuRecorded
from muster_operator.failures import BadInput, NotFound, TimedOut
from muster_operator.options import ServicesOption
from muster_operator.output import Answer, table
from muster_operator.reconcile.streams import position_of
from muster_operator.service import Service
from muster_operator.target import Target, on_target

_OWNER = "enrollment"

# An agency of a branch that cannot take part, so that its records have no consequences.
_AGENCY = "MUSTER-SELF-TEST"
_REGISTER = f"id,name,parent,treasury_code,domains,headcount,branch\n{_AGENCY},Muster's self-test,,,,,legislative\n"

# An authorization that is never in force.
_AUTHORIZATION = {
    "issuer": "GSA",
    "product": "frontier-assistant",
    "valid_from": "2099-01-01T00:00:00Z",
    "valid_until": "2099-01-02T00:00:00Z",
}

_LOOK_SECONDS = 0.1


@on_target()
async def self_test(
    target: Target,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for every reader to apply the event.")] = 30.0,
    services: ServicesOption = None,
) -> Answer:
    """Send a harmless command and wait until every reader has applied its event. The exit status is 6 on a timeout.

    It records an authorization for the fictitious agency MUSTER-SELF-TEST, which is never in force, and revokes it.
    """
    topic = topics()[AtuRecorded.topic]
    readers = [name for name in topic.readers if services is None or name in services]
    if not readers:
        raise BadInput(f"--service: must name a reader of the event: {', '.join(topic.readers)}")
    names = (_OWNER, *readers)
    for name in names:
        target.url(name)
    scopes = (f"{_OWNER}:read", f"{_OWNER}:authorize", *(f"{name}:operate" for name in names))
    async with target.services(scopes=scopes) as found:
        owner = found[_OWNER]
        await _register(owner)
        number = f"SELF-TEST-{uuid.uuid4()}"
        path = f"/v1/agencies/{_AGENCY}/authorizations"
        recorded = await owner.post(path, {"number": number, **_AUTHORIZATION})
        try:
            produced = await _position(owner, "produced")
            took = await _applied({name: found[name] for name in readers}, produced, wait)
        finally:
            revocation = f"{path}/{recorded['authorization_id']}/revocation"
            await owner.post(revocation, {"reason": "the self-test is over"})
    rows = [(name, f"{seconds:.2f} s") for name, seconds in took.items()]
    data = {
        "agency_id": _AGENCY,
        "topic": topic.name,
        **produced._asdict(),
        "applied_seconds": took,
    }
    return Answer(data, table(("reader", "applied after"), rows))


async def _register(owner: Service) -> None:
    """Add the agency to the register if it is missing; the import leaves other agencies alone."""
    try:
        await owner.get(f"/v1/agencies/{_AGENCY}")
    except NotFound:
        await owner.send("/v1/register", _REGISTER, "text/csv")


async def _applied(readers: Mapping[str, Service], produced: Position, wait: float) -> dict[str, float]:
    """Wait until each reader has applied the event at this position; return the seconds. Raises TimedOut."""
    began = time.monotonic()
    took: dict[str, float] = {}
    while True:
        for name in readers.keys() - took.keys():
            if await _position(readers[name], "applied") >= produced:
                took[name] = round(time.monotonic() - began, 3)
        if late := sorted(readers.keys() - took.keys()):
            if time.monotonic() - began >= wait:
                raise TimedOut(f"after {wait:g} s the event is not applied by {', '.join(late)}: see muster status")
            await asyncio.sleep(_LOOK_SECONDS)
        else:
            return {name: took[name] for name in readers}


async def _position(service: Service, which: str) -> Position:
    """The last position of the agency's stream in a service, produced or applied; NOTHING if there is none."""
    shown: dict[str, Any] = await service.get("/v1/streams", topic=AtuRecorded.topic, agency_id=_AGENCY)
    return position_of(next((state[which] for state in shown["items"] if state[which]), None))
