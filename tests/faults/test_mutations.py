"""The oracle is shown to see harm: each protection is removed in turn, and the same kill makes the verdict fail."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from tests.faults.field import Field
from tests.faults.probe.service import TOPIC
from tests.faults.traffic import AGENCIES

pytestmark = pytest.mark.drill


@dataclass(frozen=True)
class Scenario:
    """What harms a runtime without a protection: which process is mutated, and which kills itself, where.

    `protection` is what it lacks. `verdict` is what the oracle then says: harm that is done, and that no delay could
    look like.
    """

    protection: str
    mutated: str
    verdict: str
    dying: str | None = None
    point: str = ""
    nth: int = 1


# One effect is where another one must be; if it were only late, there would be None.
APPLIED_AGAIN = r"the effects beside the topic, place \d+: \(\(1, \d+\), .* was expected, \(\(1, \d+\), .* found"

SCENARIOS = {
    "lock_not_first": Scenario(
        "taking_the_lock_first", "api", r"the facts' numbers, place \d+: \d+ of \d+ was expected, \d+ of \d+ found"
    ),
    "deduplication_off": Scenario("deduplication", "consumer", APPLIED_AGAIN, dying="relay", point="delete", nth=2),
    "delete_before_acknowledgment": Scenario(
        "deleting_only_after_the_acknowledgment",
        "relay",
        rf"on {re.escape(TOPIC)}, \(1, \d+\) follows \(1, \d+\)",
        dying="relay",
        point="send",
        nth=2,
    ),
    "offsets_kept_first": Scenario(
        "committing_effects_before_offsets",
        "consumer",
        r"is parked: gap: sequence \d+ was expected, but \d+ arrived",
        dying="consumer",
        point="apply",
        nth=2,
    ),
    "last_sequence_apart": Scenario(
        "storing_the_last_sequence_with_the_effects",
        "consumer",
        APPLIED_AGAIN,
        dying="consumer",
        point="last sequence",
        nth=2,
    ),
}

ROLES: Sequence[str] = ("api", "relay", "consumer")


@pytest.mark.parametrize("mutation", SCENARIOS, ids=[f"without_{each.protection}" for each in SCENARIOS.values()])
async def test_the_comparison_finds_the_difference(field: Field, mutation: str) -> None:
    differences = await _after_harm(field, mutation, protected=False)
    assert any(re.search(SCENARIOS[mutation].verdict, difference) for difference in differences), differences


@pytest.mark.parametrize("mutation", SCENARIOS, ids=[f"with_{each.protection}" for each in SCENARIOS.values()])
async def test_the_comparison_finds_no_difference(field: Field, mutation: str) -> None:
    assert await _after_harm(field, mutation, protected=True) == []


async def _after_harm(field: Field, mutation: str, *, protected: bool) -> list[str]:
    """What the oracle reports after the kill, without the protection or with it."""
    scenario = SCENARIOS[mutation]
    options = {role: [] if protected or role != scenario.mutated else ["--mutation", mutation] for role in ROLES}
    await field.serve(breaking=options["api"])
    for role in ("relay", "consumer"):
        fatal = ["--die-before", scenario.point, "--nth", str(scenario.nth)] if role == scenario.dying else []
        process = field.start(role, breaking=options[role] + fatal)
        await field.ready(process)
        if fatal:
            dying = process
    await field.traffic(60)
    if scenario.dying:
        await field.until_dead(dying)
        field.start(scenario.dying, breaking=options[scenario.dying])
    for agency_id in AGENCIES:  # every stream continues after the harm
        await field.assign_seats(agency_id, f"{agency_id}-last")
    await field.at_rest()
    differences = await field.differences()
    print(*differences, sep="\n")
    return differences
