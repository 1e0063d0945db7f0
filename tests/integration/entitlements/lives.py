"""A seat in each of its states, and the events of its life."""

from datetime import timedelta
from typing import Any

from muster_contracts.event import Event
from tests.integration.entitlements.conftest import Entitlements
from tests.support.eventually import eventually

DAY = timedelta(days=1)


async def keep(entitlements: Entitlements, person: str, state: str) -> str:
    reply = await entitlements.post("seats", {"email": f"person.{person}@nasa.gov", "state": state})
    assert (reply.status_code, reply.json()["state"]) == (201, state)
    return f"seats/{reply.json()['seat_id']}"


async def published(entitlements: Entitlements, cls: type[Event], count: int, timeout: float = 15.0) -> list[Any]:
    async def all_there() -> list[Any] | None:
        events = await entitlements.service.published(cls)
        return events if len(events) == count else None

    events: list[Any] = await eventually(all_there, timeout=timeout)
    return events
