"""The oracle is proved to see: each protection is taken out in turn, and the same kill turns the verdict red."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import pytest

from tests.faults.field import Field

pytestmark = pytest.mark.drill


@dataclass(frozen=True)
class Scenario:
    """What harms a runtime without a protection: which process is mutated, and which kills itself, where."""

    mutated: str
    dying: str | None = None
    point: str = ""
    nth: int = 1


SCENARIOS = {
    "lock_not_first": Scenario("api"),
    "deduplication_off": Scenario("consumer", dying="relay", point="delete", nth=2),
    "delete_before_acknowledgement": Scenario("relay", dying="relay", point="send", nth=2),
    "kafka_commits_first": Scenario("consumer", dying="consumer", point="apply", nth=2),
    "last_sequence_apart": Scenario("consumer", dying="consumer", point="last sequence", nth=2),
}


@pytest.mark.parametrize("protected", [True, False], ids=["protected", "unprotected"])
@pytest.mark.parametrize("mutation", SCENARIOS)
async def test_the_verdict_is_red_without_the_protection_and_green_with_it(
    field: Field, mutation: str, protected: bool
) -> None:
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
    await _come_to_rest(field, protected)
    differences = await field.differences()
    print(*differences, sep="\n")
    assert bool(differences) is not protected


ROLES: Sequence[str] = ("api", "relay", "consumer")


async def _come_to_rest(field: Field, protected: bool) -> None:
    """What is broken may never come to rest."""
    if protected:
        await field.at_rest()
    else:
        with suppress(AssertionError):
            await field.at_rest(timeout=12)
