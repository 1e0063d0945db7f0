"""The tree of an event's path, built from the facts about it."""

from datetime import UTC, datetime, timedelta

import pytest

from muster_contracts import Envelope, Position, event_id, source_of
from muster_contracts.billing import InvoiceIssued
from muster_contracts.enrollment import AgencyEnrolled
from muster_operator.trace.facts import Attempt, Commit, Delivery, Facts, Parked, Progress, Published
from muster_operator.trace.tree import Node, elapsed, grow, walk

START = datetime(2025, 8, 6, tzinfo=UTC)
STREAM = AgencyEnrolled.topic, "NASA"
ENROLLED = event_id(*STREAM, 1, 7)
INVOICED = event_id(InvoiceIssued.topic, "NASA", 1, 1)


def after(milliseconds: float) -> datetime:
    return START + timedelta(milliseconds=milliseconds)


def event(cls: type, sequence: int, cause: str | None = None, *, at: float | None = 4) -> Published:
    topic = cls.topic  # type: ignore[attr-defined]
    envelope = Envelope(
        id=event_id(topic, "NASA", 1, sequence),
        source=source_of(topic),
        type=cls.event_type,  # type: ignore[attr-defined]
        time=after((at or 0) - 4),
        agency_id="NASA",
        epoch=1,
        sequence=sequence,
        correlation_id="cor_1",
        causation_id=cause,
    )
    return Published(topic, envelope) if at is None else Published(topic, envelope, after(at), 0, sequence)


def commit(
    service: str = "enrollment", actor: str = "ada", command: str = "AcceptDataUseTerms", at: float = 0
) -> Commit:
    return Commit(service, after(at), "NASA", actor, command, "enr_1", "r-1", "cor_1")


def delivery(event: str = ENROLLED, state: str = "delivered") -> Delivery:
    attempts = [Attempt(after(20), 1, 3, "retry", "answered 503"), Attempt(after(5_020), 2, 2, "delivered", None)]
    type_ = AgencyEnrolled.event_type
    return Delivery("dlv_1", after(9), "NASA", event, type_, "cor_1", "webhook", "whk_1", state, None, attempts)


def all_applied() -> dict[str, Progress]:
    applied = {STREAM: Position(1, 9), (InvoiceIssued.topic, "NASA"): Position(1, 9)}
    return {service: Progress(applied) for service in ("enrollment", "entitlements", "billing", "notify")}


def outline(nodes: list[Node], depth: int = 0) -> list[str]:
    lines = []
    for node in nodes:
        lines += [f"{'  ' * depth}{node.kind} {node.service}: {node.text}", *outline(node.children, depth + 1)]
    return lines


def test_a_command_leads_to_its_event_its_effects_and_its_deliveries() -> None:
    facts = Facts([commit()], deliveries=[delivery()], progress=all_applied())
    facts.add([event(InvoiceIssued, 1, ENROLLED, at=30), event(AgencyEnrolled, 7)])
    drawn = outline(grow(facts))
    assert drawn[:2] == [
        "commit enrollment: AcceptDataUseTerms enr_1 by ada",
        "  event enrollment: AgencyEnrolled.v1 7 of muster.enrollment.agency",
    ]
    billed = drawn.index("    effect billing: applied")
    assert drawn[billed + 1] == f"      event billing: InvoiceIssued.v1 1 of {InvoiceIssued.topic}"
    told = drawn.index("    effect notify: applied")
    assert drawn[told + 1 : told + 4] == [
        "      delivery notify: webhook to whk_1: delivered",
        "        attempt notify: attempt 1 retry in 3 ms: answered 503",
        "        attempt notify: attempt 2 delivered in 2 ms",
    ]
    assert len(grow(facts)) == 1


@pytest.mark.parametrize(
    ("progress", "said"),
    [
        (Progress({STREAM: Position(1, 6)}), "not applied yet"),
        (Progress({STREAM: Position(1, 7)}), "applied"),
        (Progress({STREAM: Position(2, 1)}), "applied"),
        (
            Progress({STREAM: Position(1, 6)}, {STREAM: Parked(after(5), "KeyError", Position(1, 7))}),
            "parked: KeyError",
        ),
        (
            Progress({STREAM: Position(1, 4)}, {STREAM: Parked(after(5), "KeyError", Position(1, 5))}),
            "parked behind 5: KeyError",
        ),
        (None, "did not answer"),
    ],
)
def test_an_event_shows_each_readers_progress(progress: Progress | None, said: str) -> None:
    known = all_applied()
    del known["notify"]
    facts = Facts([commit()], progress=known if progress is None else {**known, "notify": progress})
    facts.add([event(AgencyEnrolled, 7)])
    (notify,) = [node for node in walk(grow(facts)) if (node.kind, node.service) == ("effect", "notify")]
    assert notify.text == said
    assert notify.waits == (said != "applied")


def test_an_unpublished_event_waits_in_the_outbox_until_its_record_replaces_it() -> None:
    facts = Facts([commit()], progress=all_applied())
    facts.add([event(AgencyEnrolled, 7, at=None)])
    (node,) = grow(facts)[0].children
    assert (node.waits, node.text, node.children) == (
        True,
        "AgencyEnrolled.v1 7 of muster.enrollment.agency: waits in the outbox",
        [],
    )
    assert facts.add([event(AgencyEnrolled, 7)])
    assert not facts.add([event(AgencyEnrolled, 7, at=None), event(AgencyEnrolled, 7)])
    assert grow(facts)[0].children[0].at == after(4)


def test_effects_of_unknown_causes_are_roots() -> None:
    """A lost record, or a service's own audit row, hides none of its effects."""
    facts = Facts(
        [commit("notify", "notify", "DisableWebhook", at=40)], deliveries=[delivery()], progress=all_applied()
    )
    facts.add([event(InvoiceIssued, 1, ENROLLED, at=30)])
    roots = grow(facts)
    assert [(node.kind, node.text) for node in roots] == [
        ("event", "AgencyEnrolled.v1, whose record was not found"),
        ("commit", f"effect of {ENROLLED}, whose record was not found"),
    ]
    assert "commit notify: DisableWebhook enr_1 by notify" in [line.strip() for line in outline(roots)]
    alone = Facts()
    alone.add([event(AgencyEnrolled, 7)])
    assert grow(alone)[0].text == "commit without an audit row"
    assert {node.text for node in grow(alone)[0].children[0].children} == {"did not answer"}


def test_events_that_name_each_other_as_their_cause_are_shown_once() -> None:
    facts = Facts(progress=all_applied())
    facts.add([event(InvoiceIssued, 1, ENROLLED), event(AgencyEnrolled, 7, INVOICED)])
    shown = [node.facts["event_id"] for node in walk(grow(facts)) if node.kind == "event"]
    assert sorted(shown) == sorted([ENROLLED, INVOICED])


def test_two_commands_of_one_service_have_their_own_events() -> None:
    facts = Facts([commit(at=0), commit(command="WithdrawAgency", at=1_000)], progress=all_applied())
    facts.add([event(AgencyEnrolled, 7), event(AgencyEnrolled, 8, at=1_004)])
    assert [[child.text.split()[1] for child in node.children] for node in grow(facts)] == [["7"], ["8"]]


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [
        (0, "+0 ms"),
        (3.6, "+4 ms"),
        (-12, "-12 ms"),
        (1_500, "+1.5 s"),
        (61_000, "+1 min 1 s"),
        (3_600_000, "+1 h"),
        (90_061_000, "+1 d 1 h"),
    ],
)
def test_a_duration_is_written_briefly(milliseconds: float, said: str) -> None:
    assert elapsed(timedelta(milliseconds=milliseconds)) == said
