"""The life cycle of a seat as a table, and the events that bulk work writes by hand exactly as the models do."""

import hashlib
import hmac
from datetime import UTC, datetime

import pytest

from muster_contracts.entitlements import SeatAssigned
from muster_entitlements import publishing
from muster_entitlements.domain.people import Directory
from muster_entitlements.domain.seats import Seat, SeatAction, SeatState
from muster_runtime.identifiers import new_ids

STATES = {state.value: state for state in SeatState}
ACTIONS = {
    SeatAction.INVITE: "reserved>invited invited>invited",
    SeatAction.ACTIVATE: "invited>active assigned>active active>active",
    SeatAction.SUSPEND: "assigned>suspended active>suspended suspended>suspended",
    SeatAction.REINSTATE: "suspended>active assigned>assigned active>active",
    SeatAction.TRANSFER: "assigned>assigned active>assigned",
    SeatAction.REVOKE: " ".join(f"{state}>revoked" for state in SeatState),
}


@pytest.mark.parametrize("action", SeatAction)
@pytest.mark.parametrize("state", SeatState)
def test_an_action_moves_a_seat_to_its_next_state(state: SeatState, action: SeatAction) -> None:
    allowed = dict(pair.split(">") for pair in ACTIONS[action].split())
    expected = STATES[allowed[state]] if state in allowed else None
    assert Seat("NASA", "seat_1", "sub_1", state, used=True).after(action) is expected


def test_a_seat_that_was_never_used_is_reinstated_as_assigned() -> None:
    seat = Seat("NASA", "seat_1", "sub_1", SeatState.SUSPENDED, used=False)
    assert seat.after(SeatAction.REINSTATE) is SeatState.ASSIGNED


def test_events_written_in_bulk_are_those_that_their_model_writes() -> None:
    units = ["JPL", 'B\u00fcro "A" \\ \U0001f680', ""]
    seats = [Seat("NASA", f"seat_{n}", f"sub_{n}", SeatState.ASSIGNED, used=False) for n in range(3)]
    ids, subjects = [seat.seat_id for seat in seats], [seat.subject_ref for seat in seats]
    for given in (units, []):
        written = publishing.seats_assigned("NASA", ids, subjects, given)
        pairs = zip(seats, given or [""] * 3, strict=True)
        events = [publishing.seat_assigned(seat, unit or None) for seat, unit in pairs]
        assert written == [event.model_dump_json(exclude_none=True).encode() for event in events]
        assert [SeatAssigned.model_validate_json(each) for each in written] == events


@pytest.mark.parametrize("key", ["a key", "k" * 64, "k" * 65])
def test_a_reference_is_an_hmac(key: str) -> None:
    digest = hmac.digest(key.encode(), b"NASA|ada@nasa.gov", hashlib.sha256)
    assert Directory(key).reference("NASA", "ada@nasa.gov") == f"sub_{digest.hex()[:32]}"


def test_many_ids_are_ascending_uuids_of_their_instant() -> None:
    now = datetime(2025, 8, 6, tzinfo=UTC)
    ids = new_ids("seat", now, 1000)
    assert ids == sorted(set(ids))
    assert {len(each) for each in ids} == {len("seat_") + 32}
    assert {each[:18] for each in ids} == {f"seat_{int(now.timestamp() * 1000):012x}7"}
    assert {each[21] for each in ids} == {"8"}
