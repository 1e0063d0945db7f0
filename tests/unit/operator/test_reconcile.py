"""Each kind of difference is found, and accounts that agree show none."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from muster_contracts import SERVICES, Envelope, Position, event_id, topics
from muster_contracts.entitlements import SeatRevoked
from muster_operator.reconcile.books import Books, Enrollment, Outlook, Pool, Term, TopicEnds, Trial
from muster_operator.reconcile.comparison import compare, persisting
from muster_operator.reconcile.difference import Difference
from muster_operator.reconcile.streams import End, Streams

AGENCY = "muster.enrollment.agency"
TERM = "muster.billing.term"
STREAM = (AGENCY, "NASA")

GOES_ON = Outlook("enr_1", renewed_to=None, ended=False)

Change = Callable[[Books], Books]


def streams(**changes: Any) -> Streams:
    return replace(Streams({}, {}, {}, {}, frozenset(), {}, 1, []), **changes)


def agreeing() -> Books:
    """NASA is enrolled, and every service knows."""
    by_service = {service: streams() for service in SERVICES}
    by_service["enrollment"] = streams(produced={STREAM: Position(1, 4)})
    for reader in topics()[STREAM[0]].readers:
        by_service[reader] = streams(applied={STREAM: Position(1, 4)})
    return Books(
        streams=by_service,
        enrollments={"NASA": Enrollment("enr_1", "active")},
        contacts=frozenset({("NASA", "con_1")}),
        # An import published nothing about the second one.
        holders=frozenset({("NASA", "sub_1"), ("NASA", "sub_2")}),
        terms=[Term("trm_1", "NASA", "enr_1")],
        unpaid={("NASA", "inv_2"): "issued"},
        decided={("NASA", "trm_1"): GOES_ON},
        understood={("NASA", "trm_1"): GOES_ON},
        pools={"NASA": Pool("enr_1", suspended=False, withdrawn=False, ended=False, in_use=3, held=3)},
        trials=[Trial("win_1", "NASA", "deep_research", scheduled=True)],
        directory=frozenset({("NASA", "con_1")}),
        people=frozenset({("NASA", "sub_1")}),
    )


EVENT = Envelope(
    id=event_id(*STREAM, 1, 4),
    source="/muster/enrollment",
    type="type",
    time=datetime(2026, 8, 6, tzinfo=UTC),
    agency_id="NASA",
    epoch=1,
    sequence=4,
    correlation_id="cor_1",
)
PAID = frozenset({("NASA", "inv_1")})
LOG = TopicEnds(
    {STREAM: End(Position(1, 4), EVENT, None, partition=0, offset=3)}, people=frozenset({("NASA", "sub_1")}), paid=PAID
)


def pool(**changes: Any) -> Change:
    return lambda books: replace(books, pools={"NASA": replace(books.pools["NASA"], **changes)})


def enrollment(state: str, enrollment_id: str = "enr_1") -> Change:
    return lambda books: replace(books, enrollments={"NASA": Enrollment(enrollment_id, state)})


def understood(**changes: Any) -> Change:
    return lambda books: replace(books, understood={("NASA", "trm_1"): replace(GOES_ON, **changes)})


def closed(state: str, **known: bool) -> Change:
    """An enrollment that is over, and no term: entitlements may know."""
    over = pool(in_use=0, held=0, **known)
    return lambda books: replace(over(enrollment(state)(books)), terms=[])


def in_service(service: str, **changes: Any) -> Change:
    return lambda books: replace(books, streams={**books.streams, service: replace(books.streams[service], **changes)})


def test_accounts_that_agree_show_no_difference() -> None:
    assert compare(agreeing().streams, LOG, agreeing()) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda books: replace(books, terms=[]), {"an enrollment without a term"}),
        (
            enrollment("withdrawn"),
            {
                "a term without an enrollment",
                "seats of an agency that is not enrolled",
                "an unknown standing",
            },
        ),
        (enrollment("suspended"), {"an unknown standing"}),
        (pool(withdrawn=True, in_use=0, held=0), {"an unknown standing"}),
        (pool(ended=True, in_use=0, held=0), {"an unknown standing"}),
        (closed("ended"), {"an unknown standing"}),
        (closed("withdrawn", ended=True), {"an unknown standing"}),
        (
            lambda books: replace(closed("ended", ended=True)(books), pools=pool(ended=True)(books).pools),
            {"seats of an agency that is not enrolled"},
        ),
        (lambda books: replace(books, unpaid=dict.fromkeys(PAID, "issued")), {"a payment that billing does not know"}),
        (lambda books: replace(books, unpaid=dict.fromkeys(PAID, "void")), {"a payment that billing does not know"}),
        (lambda books: replace(books, understood={}), {"a term that entitlements sees differently"}),
        (understood(ended=True), {"a term that entitlements sees differently"}),
        (understood(enrollment_id="enr_2"), {"a term that entitlements sees differently"}),
        (understood(renewed_to=datetime(2027, 8, 6, tzinfo=UTC)), {"a term that entitlements sees differently"}),
        (pool(in_use=4), {"a projection that has drifted"}),
        (
            lambda books: replace(books, trials=[replace(books.trials[0], scheduled=False)]),
            {"a window without expiry"},
        ),
        (lambda books: replace(books, directory=frozenset()), {"a contact that notify does not know"}),
        (lambda books: replace(books, contacts=frozenset()), {"a contact that enrollment does not know"}),
        (
            lambda books: replace(books, people=books.people | {("NASA", "sub_0")}),
            {"a person who was erased and is still there"},
        ),
        (lambda books: replace(books, holders=frozenset()), {"a person who was erased and is still there"}),
        (lambda books: replace(books, people=frozenset()), {"a person whom notify does not know"}),
        (in_service("enrollment", produced={STREAM: Position(1, 5)}), {"events that the topic lacks"}),
        (in_service("enrollment", produced={STREAM: Position(1, 3)}), {"a producer that lost commits"}),
        (in_service("billing", applied={STREAM: Position(1, 3)}), {"a reader that is behind"}),
        (in_service("billing", applied={}), {"a reader that is behind"}),
        (in_service("billing", applied={STREAM: Position(1, 5)}), {"events that the topic lacks"}),
        (in_service("billing", applied={STREAM: Position(1, 2)}, parked={STREAM: "poison"}), {"a parked stream"}),
    ],
)
def test_a_difference_is_found_and_says_what_to_do(change: Change, found: set[str]) -> None:
    books = change(agreeing())
    differences = compare(books.streams, LOG, books)
    assert {difference.what for difference in differences} == found
    assert {difference.agency_id for difference in differences} == {"NASA"}
    assert all(difference.remedy and difference.found for difference in differences)


def test_a_drifted_projection_can_be_rebuilt() -> None:
    books = pool(in_use=4)(agreeing())
    (difference,) = compare(books.streams, LOG, books)
    assert difference.remedy.startswith("muster rebuild entitlements.seats-in-use")


@pytest.mark.parametrize(
    "change",
    [
        closed("ended", ended=True),
        closed("withdrawn", withdrawn=True),
        closed("withdrawn", withdrawn=True, ended=True, suspended=True),
        # The agency has applied again, and its pool still belongs to the previous enrollment.
        lambda books: enrollment("submitted", "enr_2")(closed("ended", ended=True)(books)),
        lambda books: enrollment("submitted", "enr_2")(closed("withdrawn", withdrawn=True)(books)),
        # Billing was restored, and has decided on another term since.
        lambda books: replace(books, understood={**books.understood, ("NASA", "trm_0"): GOES_ON}),
    ],
)
def test_accounts_that_agree_on_an_end_show_no_difference(change: Change) -> None:
    books = change(agreeing())
    assert compare(books.streams, LOG, books) == []


def test_events_in_progress_are_no_difference() -> None:
    waiting = in_service("enrollment", produced={STREAM: Position(1, 5)}, waiting={STREAM: Position(1, 5)})(agreeing())
    assert compare(waiting.streams, LOG, waiting) == []
    published_meanwhile = in_service("enrollment", produced={STREAM: Position(1, 3)})(agreeing())
    assert compare(published_meanwhile.streams, LOG, agreeing()) == []


def test_a_raised_epoch_without_events_is_no_loss() -> None:
    raised = in_service("enrollment", produced={STREAM: Position(2, 4)})(agreeing())
    assert compare(raised.streams, LOG, raised) == []


def test_a_compacted_topic_may_lack_what_was_erased() -> None:
    directory = ("muster.enrollment.directory", "NASA")
    books = in_service("enrollment", produced={STREAM: Position(1, 4), directory: Position(1, 9)})(agreeing())
    assert compare(books.streams, LOG, books) == []


def test_a_directory_with_an_erased_person_is_rebuilt_unless_the_topic_lacks_the_erasure() -> None:
    books = replace(agreeing(), holders=frozenset())
    (never_told,) = compare(books.streams, LOG, books)
    assert "muster erase-lost NASA sub_1 --reason" in never_told.remedy
    (missed,) = compare(books.streams, replace(LOG, people=frozenset()), books)
    assert missed.remedy.startswith("muster rebuild notify.directory")


def test_a_contact_that_enrollment_lost_is_erased_unless_notify_missed_the_erasure() -> None:
    books = replace(agreeing(), contacts=frozenset())
    (missed,) = compare(books.streams, LOG, books)
    assert missed.remedy.startswith("muster rebuild notify.directory")
    (lost,) = compare(books.streams, replace(LOG, people=LOG.people | {("NASA", "con_1")}), books)
    assert "muster erase-lost NASA con_1 --reason" in lost.remedy


def test_a_lost_change_of_a_seat_is_named_unless_a_later_one_may_be_on_its_way() -> None:
    lost = frozenset({(("NASA", "seat_1"), "revocation"), (("NASA", "seat_2"), "suspension")})
    log = replace(LOG, lost=lost)
    found = compare(agreeing().streams, log, agreeing())
    names = ["a seat whose revocation was lost", "a seat whose suspension was lost"]
    assert [(each.what, each.subject) for each in found] == list(zip(names, ["seat_1", "seat_2"], strict=True))
    assert "/v1/agencies/NASA/seats/seat_1/revocation" in found[0].remedy
    waiting = in_service("entitlements", waiting={(SeatRevoked.topic, "NASA"): (1, 5)})(agreeing())
    assert [each.what for each in compare(waiting.streams, log, waiting)] == names[:1]


def test_differences_about_two_people_are_not_confused() -> None:
    one = Difference("a person whom notify does not know", "NASA", "sub_1 …", "do", "sub_1")
    other = Difference("a person whom notify does not know", "NASA", "sub_2 …", "do", "sub_2")
    assert persisting([one], [other]) == []


def test_only_differences_seen_twice_count() -> None:
    lasting = Difference("a parked stream", "NASA", "at 3", "do")
    passing = Difference("a reader that is behind", "DOE", "at 7", "do")
    moved = replace(lasting, found="at 4")
    assert persisting([lasting, passing], [moved]) == [moved]
    assert persisting([lasting], [lasting, passing]) == [lasting]
