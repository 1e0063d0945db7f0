"""The self-test waits for every reader, and names late ones."""

from typing import Any, cast

import pytest

from muster_contracts import Position
from muster_operator.failures import TimedOut
from muster_operator.self_test import _applied
from muster_operator.service import Service


class Reader:
    """A service whose stream is at these sequences, one for each request; the last one stays."""

    def __init__(self, *sequences: int) -> None:
        self._sequences = list(sequences)

    async def get(self, _path: str, **_query: str) -> Any:
        sequence = self._sequences.pop(0) if len(self._sequences) > 1 else self._sequences[0]
        return {"items": [{"applied": {"epoch": 1, "sequence": sequence} if sequence else None}]}


async def test_each_reader_is_waited_for() -> None:
    readers = {"billing": Reader(0, 6, 7), "notify": Reader(9)}
    took = await _applied(cast("dict[str, Service]", readers), Position(1, 7), 30)
    assert list(took) == ["billing", "notify"]
    assert took["billing"] > took["notify"] >= 0


async def test_a_reader_that_is_late_is_named() -> None:
    readers = {"billing": Reader(6), "notify": Reader(7)}
    with pytest.raises(TimedOut, match=r"^after 0 s the event is not applied by billing: see muster status$"):
        await _applied(cast("dict[str, Service]", readers), Position(1, 7), 0)
