"""`muster streams` names the readers that are behind, also after an epoch was raised."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from muster_contracts import Position
from muster_operator.cli import app
from muster_operator.target import Target

STREAM = {"topic": "muster.enrollment.agency", "agency_id": "NASA"}
OLD, RAISED = Position(1, 10), Position(2, 8)  # the commits of 9 and 10 were lost


class Shown:
    """A service that shows its position of one stream."""

    def __init__(self, name: str, produced: Position | None, applied: Position | None) -> None:
        self.name = name
        self._positions = {"produced": produced, "applied": applied}

    async def items(self, _path: str, **_query: str) -> AsyncIterator[dict[str, Any]]:
        shown = {name: None if found is None else found._asdict() for name, found in self._positions.items()}
        yield {**STREAM, **shown, "parked": False}


@pytest.mark.parametrize(
    ("produced", "applied", "behind"),
    [
        (OLD, (OLD, OLD, OLD), []),
        (OLD, (OLD, Position(1, 9), None), ["entitlements", "notify"]),
        # No event is known to have followed the raise.
        (RAISED, (OLD, OLD, OLD), []),
        (RAISED, (Position(1, 7), OLD, OLD), ["billing"]),
        # Another reader shows that one has.
        (RAISED, (OLD, RAISED, RAISED), ["billing"]),
        (Position(2, 9), (OLD, RAISED, Position(2, 9)), ["billing", "entitlements"]),
        (RAISED, (RAISED, RAISED, RAISED), []),
        # The epoch was raised again, and no event has followed.
        (Position(3, 8), (RAISED, RAISED, RAISED), []),
    ],
)
def test_the_readers_of_a_stream_that_are_behind(
    monkeypatch: pytest.MonkeyPatch, produced: Position, applied: tuple[Position | None, ...], behind: list[str]
) -> None:
    readers = zip(("billing", "entitlements", "notify"), applied, strict=True)
    shown = {name: Shown(name, None, position) for name, position in readers}

    @asynccontextmanager
    async def running(_target: Target, *_: Any) -> AsyncIterator[dict[str, Shown]]:
        yield {"enrollment": Shown("enrollment", produced, None), **shown}

    monkeypatch.setattr(Target, "services", running)
    result = CliRunner().invoke(app, ["streams", "--behind", "--json"], env={"MUSTER_TOKEN": "token"})
    assert result.exit_code == 0, result.output
    assert [sorted(item["behind"]) for item in json.loads(result.stdout)["items"]] == ([behind] if behind else [])
