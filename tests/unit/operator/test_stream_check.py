"""What a stream lacks is named, with the service that lacks it; events in progress and a raised epoch are not."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from muster_contracts import SERVICES, Envelope, Position, event_id
from muster_operator.check import under_way
from muster_operator.reconcile.streams import (
    BEHIND,
    LOST_COMMITS,
    NOT_APPLIED,
    NOT_PUBLISHED,
    PARKED,
    TOPIC_LACKS,
    End,
    Missing,
    Streams,
    not_applied,
    not_on_topic,
)
from muster_runtime.messaging.passing import OffsetRange

TOPIC = "muster.enrollment.agency"
STREAM = (TOPIC, "NASA")
EMPTY = Streams({}, {}, {}, {}, frozenset(), {}, 1, [])

# The last record is at offset 9 of partition 2.
READ = {(TOPIC, 2): 10}
UNREAD = {(TOPIC, 2): 9}


def end(position: Position, *, record_id: str = "") -> dict[tuple[str, str], End]:
    event = Envelope(
        id=record_id or event_id(*STREAM, *position),
        source="/muster/enrollment",
        type="type",
        time=datetime(2026, 8, 6, tzinfo=UTC),
        agency_id="NASA",
        epoch=position.epoch,
        sequence=position.sequence,
        correlation_id="cor_1",
    )
    return {STREAM: End(position, event, None, partition=2, offset=9)}


def services(produced: Position | None, applied: Position | None, **of_owner: Any) -> dict[str, Streams]:
    """Every reader has applied the same."""
    reader = replace(EMPTY, applied={} if applied is None else {STREAM: applied}, next_offsets=READ)
    owner = replace(EMPTY, produced={} if produced is None else {STREAM: produced}, **of_owner)
    return {**dict.fromkeys(SERVICES, reader), "enrollment": owner}


def found(streams: Mapping[str, Streams], ends: Mapping[tuple[str, str], End]) -> list[Missing]:
    return sorted({*not_on_topic(streams, ends, streams), *not_applied(ends, streams)})


def kinds(missing: list[Missing]) -> set[tuple[str, str, str]]:
    return {(each.what, each.service, each.sequences) for each in missing}


@pytest.mark.parametrize(
    ("produced", "ends", "applied", "of_owner"),
    [
        (Position(1, 4), Position(1, 4), Position(1, 4), {}),
        # The epoch was raised after commits were lost, and no event has followed.
        (Position(2, 2), Position(1, 4), Position(1, 4), {"epoch": 2}),
        # The same for a stream that lost every commit.
        (None, Position(1, 4), Position(1, 4), {"epoch": 2}),
        # The new epoch reuses sequences that the readers have already applied.
        (Position(2, 3), Position(2, 3), Position(2, 3), {"epoch": 2}),
        # Another program wrote the last record, and an operator let the relay pass it.
        (Position(1, 3), Position(1, 4), Position(1, 4), {"passed": [OffsetRange(TOPIC, 2, 9, 9)]}),
    ],
)
def test_a_complete_stream(produced: Position, ends: Position, applied: Position, of_owner: dict[str, Any]) -> None:
    assert found(services(produced, applied, **of_owner), end(ends)) == []


def test_a_record_with_another_programs_id_is_no_lost_commit() -> None:
    assert found(services(Position(1, 3), Position(1, 4)), end(Position(1, 4), record_id="another")) == []


@pytest.mark.parametrize(
    ("produced", "ends", "of_owner", "what", "sequences"),
    [
        (Position(1, 4), Position(1, 9), {}, LOST_COMMITS, "5 to 9"),
        (None, Position(1, 9), {}, LOST_COMMITS, "1 to 9"),
        (Position(1, 8), Position(1, 9), {"passed": [OffsetRange(TOPIC, 2, 8, 8)]}, LOST_COMMITS, "9"),
        # The database was restored to a state before an epoch was raised.
        (Position(1, 8), Position(2, 9), {}, LOST_COMMITS, "after 8 (epoch 1), up to 9 (epoch 2)"),
        (Position(1, 12), Position(1, 9), {}, TOPIC_LACKS, "10 to 12"),
        (Position(2, 12), Position(2, 9), {}, TOPIC_LACKS, "10 to 12 (epoch 2)"),
        (Position(1, 12), Position(1, 9), {"waiting": {STREAM: Position(1, 10)}}, NOT_PUBLISHED, "10 to 12"),
        # Waiting events reuse sequences of the old epoch.
        (Position(2, 5), Position(1, 9), {"waiting": {STREAM: Position(2, 4)}}, NOT_PUBLISHED, "4 to 5 (epoch 2)"),
    ],
)
def test_what_the_producer_or_its_topic_lacks_is_named(
    produced: Position, ends: Position, of_owner: dict[str, Any], what: str, sequences: str
) -> None:
    missing = found(services(produced, ends, **of_owner), end(ends))
    assert kinds(missing) == {(what, "enrollment", sequences)}


def reader(**changes: Any) -> dict[str, Streams]:
    """Only billing differs."""
    streams = services(Position(1, 9), Position(1, 9))
    return {**streams, "billing": replace(streams["billing"], **changes)}


@pytest.mark.parametrize(
    ("streams", "what", "sequences"),
    [
        (reader(applied={STREAM: Position(1, 4)}, next_offsets=UNREAD), BEHIND, "5 to 9"),
        (reader(applied={STREAM: Position(1, 4)}, next_offsets={}), BEHIND, "5 to 9"),
        (reader(applied={STREAM: Position(1, 4)}), NOT_APPLIED, "5 to 9"),
        (reader(applied={}), NOT_APPLIED, "1 to 9"),
        (reader(applied={STREAM: Position(1, 8)}, parked={STREAM: "poison"}), PARKED, "9"),
        (reader(applied={STREAM: Position(1, 11)}), TOPIC_LACKS, "10 to 11"),
    ],
)
def test_what_a_reader_lacks_is_named(streams: dict[str, Streams], what: str, sequences: str) -> None:
    missing = found(streams, end(Position(1, 9)))
    assert kinds(missing) == {(what, "billing", sequences)}
    assert all(each.remedy for each in missing)


def test_a_stream_that_is_parked_without_an_event_is_named() -> None:
    streams = reader(parked={(TOPIC, "?"): "no event"})
    assert kinds(found(streams, end(Position(1, 9)))) == {(PARKED, "billing", "none")}


def test_streams_of_a_service_that_was_not_read_are_not_judged() -> None:
    readers = {
        name: streams for name, streams in services(Position(1, 9), Position(1, 8)).items() if name != "enrollment"
    }
    assert kinds(found(readers, end(Position(1, 9)))) == {
        (NOT_APPLIED, name, "9") for name in ("billing", "entitlements", "notify")
    }


def test_an_event_published_in_the_meantime_is_not_missing() -> None:
    before, after = services(Position(1, 8), Position(1, 8)), services(Position(1, 9), Position(1, 9))
    assert list(not_on_topic(before, end(Position(1, 9)), after)) == []


def test_positions_of_lost_commits_that_are_assigned_again_are_named() -> None:
    """The database lost 5 to 9, and has since executed new commands, whose events its relay holds back."""
    of_owner = {"waiting": {STREAM: Position(1, 5)}, "reassigned": frozenset({STREAM})}
    missing = found(services(Position(1, 11), Position(1, 9), **of_owner), end(Position(1, 9)))
    assert kinds(missing) == {(LOST_COMMITS, "enrollment", "5 to 9"), (NOT_PUBLISHED, "enrollment", "5 to 11")}


def test_an_event_that_leaves_the_outbox_in_the_meantime_is_not_missing() -> None:
    """Kafka has it already, and it is about to be deleted; another event of the stream waits by then."""
    before = services(Position(1, 9), Position(1, 9), waiting={STREAM: Position(1, 9)})
    after = services(Position(1, 10), Position(1, 9), waiting={STREAM: Position(1, 10)})
    assert list(not_on_topic(before, end(Position(1, 9)), after)) == []
    (stuck,) = not_on_topic(before, end(Position(1, 9)), before)
    assert stuck.what == NOT_PUBLISHED


def test_waiting_events_of_a_service_that_lost_commits_are_not_waited_for() -> None:
    of_owner = {"waiting": {STREAM: Position(1, 5)}, "reassigned": frozenset({STREAM})}
    assert under_way(found(services(Position(1, 11), Position(1, 9), **of_owner), end(Position(1, 9)))) == set()
    assert under_way(
        found(services(Position(1, 11), Position(1, 9), waiting={STREAM: Position(1, 10)}), end(Position(1, 9)))
    ) == {STREAM}


def test_a_parked_stream_is_not_waited_for() -> None:
    parked = found(reader(applied={STREAM: Position(1, 8)}, parked={STREAM: "poison"}), end(Position(1, 9)))
    assert under_way(parked) == set()
    late = [replace(each, what=BEHIND, service="notify") for each in parked]
    assert under_way(parked + late) == {STREAM}
