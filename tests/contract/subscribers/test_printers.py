"""The examples that print facts, run unchanged against a real Kafka."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muster_contracts.entitlements import SeatAssigned
from muster_contracts.testing import build, record
from tests.contract.subscribers.examples import (
    AGENCIES,
    EXAMPLES,
    PRINTERS,
    Topic,
    interleaved,
    seats,
    typed,
)
from tests.support.eventually import eventually


def last_kept(state: Path) -> set[int]:
    """The streams' last sequences in an example's file."""
    places = json.loads(state.read_text())["places"]
    return {int(place[-1]) for place in (places.values() if isinstance(places, dict) else places)}


@pytest.mark.parametrize("command", PRINTERS)
async def test_each_fact_is_printed_once_in_order_even_across_a_restart(
    command: Callable[[], list[str]], topic: Topic, run: Callable[..., Any], tmp_path: Path
) -> None:
    first = interleaved(range(1, 21))
    await topic.put(first)
    # Like a relay that died after the acknowledgment: publish the same records again.
    await topic.put(first[-12:])

    async with run(command()) as subscriber:
        await eventually(lambda: len(subscriber.facts) >= 60 or subscriber.process.returncode, timeout=40)
        assert len(subscriber.facts) >= 60, subscriber.stderr
        await topic.put(interleaved(range(21, 31)))
        await eventually(lambda: len(subscriber.facts) >= 90)
        # An example stopped between its last print and the write to its file would print that fact again.
        await eventually(lambda: last_kept(tmp_path / "positions.json") == {30})
    for agency in AGENCIES:
        assert subscriber.sequences(agency) == list(range(1, 31)), subscriber.stderr
    assert {fact["type"] for fact in subscriber.facts} == {
        "muster.entitlements.SeatReserved.v1",
        "muster.entitlements.SeatAssigned.v1",
        "muster.entitlements.SeatActivated.v1",
        "muster.entitlements.SeatRevoked.v1",
    }

    await topic.put(interleaved(range(26, 41)))
    async with run(command()) as restarted:
        await eventually(lambda: len(restarted.facts) >= 30, timeout=40)
    for agency in AGENCIES:
        assert restarted.sequences(agency) == list(range(31, 41)), restarted.stderr


@pytest.mark.parametrize("command", PRINTERS)
async def test_a_gap_stops_the_subscriber_and_is_named(
    command: Callable[[], list[str]], topic: Topic, run: Callable[..., Any]
) -> None:
    await topic.put([*seats("NASA", range(1, 4)), *seats("NASA", range(6, 8))])
    async with run(command()) as subscriber, asyncio.timeout(40):
        await subscriber.process.wait()
    assert subscriber.process.returncode != 0
    assert "NASA: events 4 to 5 are missing" in subscriber.stderr
    assert subscriber.sequences("NASA") == [1, 2, 3]


@pytest.mark.parametrize("command", PRINTERS)
async def test_a_gap_at_a_new_epoch_stops_the_subscriber_as_well(
    command: Callable[[], list[str]], topic: Topic, run: Callable[..., Any]
) -> None:
    """A restored producer continues its numbering: what it skips is lost."""
    skipping = record(build(SeatAssigned, agency_id="NASA"), sequence=6, epoch=2)
    await topic.put([*seats("NASA", range(1, 4)), skipping])
    async with run(command()) as subscriber, asyncio.timeout(40):
        await subscriber.process.wait()
    assert subscriber.process.returncode != 0
    assert "NASA: events 4 to 5 are missing" in subscriber.stderr
    assert subscriber.sequences("NASA") == [1, 2, 3]


@pytest.mark.parametrize("command", PRINTERS)
async def test_an_unknown_type_has_its_place_and_a_newer_version_stops_the_subscriber(
    command: Callable[[], list[str]], topic: Topic, run: Callable[..., Any], tmp_path: Path
) -> None:
    first, second, third = (record(build(SeatAssigned, agency_id="NASA"), sequence=number) for number in (1, 2, 3))
    await topic.put([first, typed(second, "muster.entitlements.SeatMerged.v1")])
    async with run(command()) as subscriber, asyncio.timeout(40):
        kept = tmp_path / "positions.json"
        await eventually(lambda: kept.exists() and last_kept(kept) == {2}, timeout=40)
        await topic.put([typed(third, "muster.entitlements.SeatAssigned.v2")])
        await subscriber.process.wait()
    assert subscriber.process.returncode != 0
    assert "muster.entitlements.SeatAssigned.v2" in subscriber.stderr
    assert (subscriber.sequences("NASA"), last_kept(kept)) == ([1], {2})


@pytest.mark.parametrize("command", PRINTERS)
async def test_a_second_instance_is_refused_and_the_first_continues(
    command: Callable[[], list[str]], topic: Topic, run: Callable[..., Any], tmp_path: Path
) -> None:
    async with run(command()) as first:
        await eventually(lambda: "connected, waiting" in first.stderr, timeout=40)
        async with run(command(), STATE=str(tmp_path / "second.json")) as second, asyncio.timeout(40):
            await second.process.wait()
        assert second.process.returncode == 1
        assert "has another member, and this example is for one instance" in second.stderr
        assert "Traceback" not in second.stderr
        await topic.put(seats("NASA", range(1, 4)))
        await eventually(lambda: first.sequences("NASA") == [1, 2, 3], timeout=40)


@pytest.mark.parametrize("command", PRINTERS)
async def test_of_two_instances_that_start_at_once_at_most_one_continues(
    command: Callable[[], list[str]], topic: Topic, run: Callable[..., Any], tmp_path: Path
) -> None:
    await topic.put(interleaved(range(1, 11)))
    async with run(command()) as one, run(command(), STATE=str(tmp_path / "second.json")) as other:
        both = (one, other)

        def settled() -> bool:
            return all(each.process.returncode is not None or len(each.facts) >= 30 for each in both)

        await eventually(settled, timeout=40)
        refused = [each for each in both if each.process.returncode is not None]
        assert refused
        for each in refused:
            assert each.process.returncode == 1
            assert "has another member, and this example is for one instance" in each.stderr
            assert "Traceback" not in each.stderr
            assert each.facts == []
    if refused == [one, other]:
        async with run(command()) as again:
            await eventually(lambda: len(again.facts) >= 30, timeout=40)


@pytest.mark.parametrize("command", PRINTERS)
async def test_a_state_from_another_log_is_refused_so_that_no_facts_are_skipped(
    command: Callable[[], list[str]],
    topic: Topic,
    run: Callable[..., Any],
    tmp_path: Path,
    kafka_bootstrap: str,
    topic_prefix: str,
) -> None:
    async def refused() -> None:
        async with run(command()) as subscriber, asyncio.timeout(40):
            await subscriber.process.wait()
        assert subscriber.process.returncode == 1
        assert "holds positions of another log" in subscriber.stderr
        assert subscriber.facts == []

    await topic.put(seats("NASA", range(1, 4)))
    async with run(command()) as subscriber:
        await eventually(lambda: len(subscriber.facts) >= 3, timeout=40)
    state = tmp_path / "positions.json"
    kept = state.read_text()
    cluster = next(value for name, value in json.loads(kept)["log"].items() if name.startswith("cluster"))
    state.write_text(kept.replace(cluster, "a-new-cluster"))
    await refused()

    state.write_text(kept)
    await topic.make_again(kafka_bootstrap, topic_prefix)
    await topic.put(seats("NASA", range(1, 4)))
    await refused()


def test_each_example_has_its_own_group() -> None:
    sources = [*EXAMPLES.glob("python/*.py"), *EXAMPLES.glob("javascript/*.mjs")]
    found = [
        group
        for source in sources
        for group in re.findall(r'(?:"GROUP",|env\.GROUP \?\?) "([\w-]+)"', source.read_text("utf-8"))
    ]
    assert len(found) == len(set(found)) == len(PRINTERS) + 1


def test_the_page_names_a_group_that_kafka_allows() -> None:
    """A registered subscriber may use groups whose names begin with its name and a dot."""
    page = (EXAMPLES.parent / "SUBSCRIBE.md").read_text("utf-8")
    exported = dict(re.findall(r"^export (\w+)=(\S+)", page, re.MULTILINE))
    assert exported["GROUP"].startswith(f"{exported['MUSTER_KAFKA_USERNAME']}.")


@pytest.mark.parametrize("command", PRINTERS)
async def test_a_missing_password_is_named(command: Callable[[], list[str]], run: Callable[..., Any]) -> None:
    async with run(command(), MUSTER_KAFKA_SECURITY_PROTOCOL="SASL_SSL") as subscriber, asyncio.timeout(40):
        await subscriber.process.wait()
    assert subscriber.stderr == "set MUSTER_KAFKA_PASSWORD_FILE or MUSTER_KAFKA_PASSWORD\n"
