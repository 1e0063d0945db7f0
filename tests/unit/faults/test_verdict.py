"""The oracle's evidence shows one state, and gathering it ends."""

from collections.abc import Sequence
from typing import Any

import pytest

from tests.faults.live import verdict


@pytest.mark.parametrize(
    ("growing", "expected"),
    [
        (0, ["gather"]),
        (2, ["gather", "rest", "gather", "rest", "gather"]),
        (1_000, ["gather", *["rest", "gather"] * 4]),
    ],
)
async def test_evidence_is_gathered_again_once_a_stream_that_grew_is_at_rest(
    monkeypatch: pytest.MonkeyPatch, growing: int, expected: Sequence[str]
) -> None:
    """A stream grows during the first `growing` rounds of gathering."""
    done: list[str] = []

    async def read_produced(_: Any) -> int:
        return min(done.count("gather"), growing)

    async def gather(*_: Any) -> str:
        done.append("gather")
        assert len(done) < 100, "gathering does not end"
        return f"evidence {done.count('gather')}"

    async def at_rest(_: Any) -> bool:
        done.append("rest")
        return True

    for name, replaced in (("_read_produced", read_produced), ("gather", gather), ("at_rest", at_rest)):
        monkeypatch.setattr(verdict, name, replaced)
    stack: Any = None
    evidence: Any = await verdict.gather_one_state(stack, {}, [])
    assert done == expected
    assert evidence == f"evidence {expected.count('gather')}"
