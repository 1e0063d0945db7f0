"""What a rebuild prints for people."""

import pytest

from muster_runtime.operations.rebuild import Outcome
from muster_runtime.projection import Difference

CORRECTED, HELD = Difference("NASA", "the record of 1 person"), Difference("DOE", "its own record", "DOE is parked")


def shown(capsys: pytest.CaptureFixture[str], remaining: list[Difference]) -> list[str]:
    Outcome("entitlements.snapshot", 1, 0, [CORRECTED, HELD], remaining).show()
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_each_difference_has_its_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, [HELD]) == [
        "1 record on the topics; 0 could not be read",
        "agency entitlements.snapshot result",
        "NASA the record of 1 person corrected",
        "DOE its own record cannot be corrected: DOE is parked",
        "1 difference remains",
    ]
    compared = shown(capsys, [CORRECTED, HELD])
    assert compared[2:] == [
        "NASA the record of 1 person not corrected",
        "DOE its own record cannot be corrected: DOE is parked",
        "2 differences remain",
    ]
