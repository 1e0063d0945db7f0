"""Counts a report of use that arrived over HTTP. The reply names the refused events."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from muster_entitlements.domain.usage import Use, read_use
from muster_entitlements.handlers.usage import Nearest, Tally, count_uses, stranger
from muster_entitlements.replies.usage import RefusedUseReply, UsageReply
from muster_entitlements.repository import pools
from muster_runtime.database.transactions import Connection, UnitOfWork
from muster_runtime.errors import InvalidInput
from muster_runtime.pacing import Pace

Read = Callable[[], AbstractAsyncContextManager[Connection]]
Write = Callable[[str], AbstractAsyncContextManager[UnitOfWork]]

# How many uses of a report one transaction counts. In between, others get the agency's lock and the event loop.
PART_USES = 2_000


async def report_usage(events: Sequence[Any], *, read: Read, write: Write) -> UsageReply:
    """Count a batch of events agency by agency, in parts and in order of time. The reply names refused events."""
    tally, nearest = Tally(), Nearest()
    uses, tally.refused = await _read_all(events)
    async with read() as connection:
        enrolled = await pools.find_enrolled(connection, uses)
    for agency_id in uses.keys() - enrolled:
        tally.refused |= {place: stranger(use) for place, use in uses[agency_id].items()}
    for agency_id in sorted(enrolled):
        in_time = sorted(uses[agency_id].items(), key=lambda placed: placed[1].at)
        for start in range(0, len(in_time), PART_USES):
            async with write(agency_id) as uow:
                tally.add(await count_uses(uow, dict(in_time[start : start + PART_USES]), nearest))
    return UsageReply(
        counted=tally.counted,
        repeated=tally.repeated,
        refused=[_refused(place, events[place], tally.refused[place]) for place in sorted(tally.refused)],
    )


async def _read_all(events: Sequence[Any]) -> tuple[dict[str, dict[int, Use]], dict[int, InvalidInput]]:
    """The uses by agency and place; and, by place, why the other events are invalid."""
    uses: dict[str, dict[int, Use]] = {}
    refused: dict[int, InvalidInput] = {}
    pace = Pace()
    for place, event in enumerate(events):
        try:
            use = read_use(event)
        except InvalidInput as refusal:
            refused[place] = refusal
        else:
            uses.setdefault(use.agency_id, {})[place] = use
        await pace.keep()
    return uses, refused


def _refused(place: int, event: Any, refusal: InvalidInput) -> RefusedUseReply:
    [error] = refusal.extensions["errors"]
    name = event.get("id") if isinstance(event, Mapping) else None
    return RefusedUseReply(
        index=place, id=_shown(name) if isinstance(name, str) else None, **error | {"value": _shown(error["value"])}
    )


def _shown(text: str) -> str:
    """Escape half of a surrogate pair, which JSON can contain but UTF-8 cannot."""
    return text.encode(errors="backslashreplace").decode()
