"""What a transaction writes at its end: rows by statement, and events in parts that fit into a message."""

from datetime import UTC, datetime
from typing import cast

import pytest

from muster_contracts.entitlements import AgencyAccess, PersonErased, PersonRecorded, SeatAssigned, SubjectAccess
from muster_contracts.testing import build
from muster_runtime.database import outbox
from muster_runtime.database.connections import Connection
from muster_runtime.database.outbox import EVENT_BYTES, RUN_LENGTH, STATEMENT_BYTES, Entry, RunKey, States
from muster_runtime.database.unit_of_work import UnitOfWork
from muster_runtime.database.writes import Writes
from muster_runtime.errors import InvalidInput
from tests.support.contexts import CONTEXT

NOW = datetime(2026, 3, 5, tzinfo=UTC)


def run(records: list[tuple[str, bytes | None]], topic: str = SeatAssigned.topic) -> Entry:
    return Entry(RunKey(topic, "NASA", SeatAssigned.event_type, NOW, "cor_1", None, None), records)


def test_the_rows_of_a_statement_become_its_columns() -> None:
    writes = Writes()
    writes.add_row("noted as (…)", "NASA", 1)
    writes.add_row("noted as (…)", "DOE", 2)
    writes.add(("added as (…)", ["once"]))
    assert writes.take() == [("added as (…)", ["once"]), ("noted as (…)", [["NASA", "DOE"], [1, 2]])]
    assert writes.take() == []


def test_of_several_rows_with_the_same_key_the_last_is_written() -> None:
    writes = Writes()
    for number in (1, 2, 3):
        writes.add_row("moved as (…)", "NASA", number, key="NASA")
    assert writes.take() == [("moved as (…)", [["NASA"], [3]])]


def test_a_long_run_is_cut_and_all_of_it_goes_in_one_statement() -> None:
    ((_, arguments),) = outbox.append([run([("NASA", b"{}")] * (RUN_LENGTH + 1))], NOW)
    assert arguments[7] == [RUN_LENGTH, 1]
    assert arguments[-2:] == [[], [b"{}"] * (RUN_LENGTH + 1)], "no key differs from the agency, so none is sent"


def test_keys_are_sent_if_a_run_has_its_own() -> None:
    erased = run([("sub_1", None), ("sub_2", None)], PersonErased.topic)
    ((_, arguments),) = outbox.append([run([("NASA", b"{}")]), erased], NOW)
    assert arguments[8:] == [[False, True], NOW, ["NASA", "sub_1", "sub_2"], [b"{}", None, None]]


def test_rows_that_do_not_fit_into_one_message_go_in_several() -> None:
    third = b"x" * (STATEMENT_BYTES // 3)
    parts = list(outbox.append([run([("NASA", third)], f"topic {number}") for number in range(5)], NOW))
    assert [arguments[0] for _, arguments in parts] == [["topic 0", "topic 1", "topic 2"], ["topic 3", "topic 4"]]


def test_only_the_last_state_of_a_key_is_published_whatever_its_type() -> None:
    def of(event_type: str, topic: str = PersonErased.topic) -> RunKey:
        return RunKey(topic, "NASA", event_type, NOW, "cor_1", None, None)

    recorded, erased = of(PersonRecorded.event_type), of(PersonErased.event_type)
    states = States()
    states.add(recorded, {"sub_1": b"1", "sub_2": b"2"})
    states.add(erased, {"sub_1": None, "sub_3": None})
    states.add(recorded, {"sub_3": b"3", "sub_2": b"4"})
    states.add(of("other", "another topic"), {"sub_1": b"5"})
    assert [(entry.run, entry.records) for entry in states.take()] == [
        (recorded, [("sub_2", b"4"), ("sub_3", b"3")]),
        (erased, [("sub_1", None)]),
        (of("other", "another topic"), [("sub_1", b"5")]),
    ]
    assert states.take() == []


def test_a_record_that_kafka_would_not_accept_is_refused_as_soon_as_it_is_published() -> None:
    """Such a record would wait in the outbox forever, and everything after it would wait too."""
    connection = cast("Connection", None)
    uow = UnitOfWork(connection, frozenset({"NASA"}), NOW, CONTEXT)
    at_most = b"x" * EVENT_BYTES
    uow.publish_states(SubjectAccess, "NASA", {"sub_1": at_most, "sub_2": None})
    with pytest.raises(InvalidInput, match=rf"SubjectAccess.v1: .* must be at most {EVENT_BYTES} bytes"):
        uow.publish_states(SubjectAccess, "NASA", {"sub_1": b"{}", "sub_2": at_most + b"x"})
    grants = build(AgencyAccess).grants * 10_000
    for publish in (uow.publish, uow.publish_state):
        with pytest.raises(InvalidInput, match=r"AgencyAccess.v1"):
            publish(build(AgencyAccess, agency_id="NASA", grants=grants))
    with pytest.raises(InvalidInput, match=r"SeatAssigned.v1"):
        uow.publish_encoded(SeatAssigned, "NASA", [b"{}", at_most + b"x"])
