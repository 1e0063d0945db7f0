"""Each line of the proof is green on sound books, and turns red on every fault that it exists to find."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from muster_contracts.enrollment import AgencyWithdrawn
from muster_contracts.entitlements import (
    AgencyQuotaThresholdCrossed,
    FeatureWindowChanged,
    QuotaThresholdCrossed,
    SeatAssigned,
    SeatRevoked,
    SeatTrialExpired,
    TrialExpired,
)
from muster_local.demo.cast import Agency
from muster_local.demo.evidence import Entry, Evidence, Term
from muster_local.demo.new_features import Use
from muster_local.demo.proof import LINES, prove
from muster_local.demo.proof.deliveries import mail_rules, mails_arrived, one_delivery_per_intent, webhooks_verified
from muster_local.demo.proof.features import (
    copy_agrees,
    extension_approved,
    quota_kept,
    seat_trials_expired_once,
    thresholds_mailed_once,
)
from muster_local.demo.proof.program import (
    catalog_reached_everyone,
    everyone_enrolled,
    ledger_balances,
    one_term_and_invoice,
    seats_within_cap,
    trials_expired_once,
)
from muster_local.demo.proof.streams import effects_once, nothing_waits, streams_applied, streams_gapless
from tests.unit.local.feature_books import EXTENDED_AT, SEAT_TRIAL_END, START, TRIAL_END, YEAR_END, seat, use
from tests.unit.local.sound_books import (
    evidence_of,
    facts_of,
    sound_events,
    term,
    with_books,
    with_more,
    without,
)


@pytest.fixture
def sound() -> Evidence:
    return evidence_of(sound_events())


def test_sound_books_are_green(sound: Evidence) -> None:
    assert [line for line in prove(sound) if not line.ok] == []


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.__name__)
def test_without_events_no_line_is_green(line: Callable[[Evidence], Any]) -> None:
    nothing = replace(evidence_of([]), books={}, ledger=[], uses=[])
    assert not line(nothing).ok


def test_an_agency_that_is_not_enrolled(sound: Evidence) -> None:
    absent = Agency("GSA", "GSA", "gsa.gov", 1, START, ())
    assert not everyone_enrolled(replace(sound, agencies=[*sound.agencies, absent])).ok


def test_an_agency_with_a_different_number_of_seats_than_agreed(sound: Evidence) -> None:
    assert not everyone_enrolled(replace(sound, agencies=[replace(sound.agencies[0], seats=3)])).ok


def test_a_second_first_term(sound: Evidence) -> None:
    assert not one_term_and_invoice(with_more(*term("term_9", 1, START, YEAR_END))).ok
    assert not one_term_and_invoice(replace(sound, terms=[*sound.terms, Term("term_9", "enr_1", 1)])).ok


def test_a_term_without_an_invoice(sound: Evidence) -> None:
    assert not one_term_and_invoice(without("InvoiceIssued")).ok
    assert not one_term_and_invoice(replace(sound, invoiced_terms=["term_1"])).ok


def test_a_second_term_that_nobody_accepted() -> None:
    assert not one_term_and_invoice(without("RenewalDecided")).ok


def test_a_seat_above_the_cap() -> None:
    one_more = (seat(SeatAssigned, 4), START)
    given_back = (seat(SeatRevoked, 4, reason="requested"), START)
    assert not seats_within_cap(with_more(one_more, given_back)).ok


def test_a_pool_with_a_different_count(sound: Evidence) -> None:
    assert not seats_within_cap(replace(sound, seats_in_use={"NASA": 1})).ok


@pytest.mark.parametrize("name", ["TrialExpired", "TrialEndingSoon"])
def test_a_trial_without_its_event(name: str) -> None:
    assert not trials_expired_once(without(name)).ok


def test_a_trial_that_expired_twice() -> None:
    again = next(event for event in sound_events() if isinstance(event[0], TrialExpired))
    assert not trials_expired_once(with_more(again)).ok


def test_a_trial_that_expired_at_the_wrong_instant() -> None:
    events = [
        (event, time + timedelta(seconds=1) if isinstance(event, TrialExpired) else time)
        for event, time in sound_events()
    ]
    assert not trials_expired_once(evidence_of(events)).ok


def test_a_trial_of_an_agency_that_has_left() -> None:
    left = AgencyWithdrawn(agency_id="NASA", enrollment_id="enr_1", reason="reorganized", withdrawn_at=START)
    assert not trials_expired_once(with_more((left, START))).ok


def test_an_agency_that_a_catalog_change_did_not_reach_or_reached_twice() -> None:
    assert not catalog_reached_everyone(without("FeatureWindowChanged")).ok
    again = next(event for event in sound_events() if isinstance(event[0], FeatureWindowChanged))
    assert not catalog_reached_everyone(with_more(again)).ok


def test_a_new_feature_that_an_agency_did_not_get() -> None:
    assert not catalog_reached_everyone(without("FeatureWindowOpened")).ok


def test_a_longer_trial_that_nobody_else_approved(sound: Evidence) -> None:
    [approved] = sound.proposals
    for changes in (
        {"decided_by": "ann"},
        {"state": "pending", "decided_by": None, "decided_at": None},
        {"decided_at": EXTENDED_AT + timedelta(seconds=1)},
    ):
        assert not extension_approved(replace(sound, proposals=[replace(approved, **changes)])).ok
    assert not extension_approved(replace(sound, proposals=[])).ok
    assert not extension_approved(without("FeatureWindowExtended")).ok


@pytest.mark.parametrize("name", ["SeatTrialExpired", "SeatTrialsEndingSoon"])
def test_a_seats_trial_whose_event_is_missing_or_repeated(name: str) -> None:
    assert not seat_trials_expired_once(without(name)).ok
    again = next(event for event in sound_events() if type(event[0]).__name__ == name)
    assert not seat_trials_expired_once(with_more(again)).ok
    assert not seat_trials_expired_once(without("SeatActivated")).ok


def test_a_seats_trial_that_ended_at_the_wrong_instant(sound: Evidence) -> None:
    late = [
        (event, time + timedelta(seconds=1) if isinstance(event, SeatTrialExpired) else time)
        for event, time in sound_events()
    ]
    assert not seat_trials_expired_once(evidence_of(late)).ok
    assert not seat_trials_expired_once(replace(sound, instants=sound.instants - {SEAT_TRIAL_END})).ok


@pytest.mark.parametrize(
    ("place", "other"),
    [
        (0, use(9, used=8)),  # the answer has a different count
        (0, use(9, counted=False)),  # within the quota, and refused
        (4, use(4, used=21)),  # above the quota, and counted
        (2, use(1, reported=True)),  # counted twice
    ],
)
def test_a_use_that_is_wrongly_counted_or_refused(sound: Evidence, place: int, other: Use) -> None:
    uses = [*sound.uses[:place], other, *sound.uses[place + 1 :]]
    assert not quota_kept(replace(sound, uses=uses)).ok


def test_a_quota_that_refused_nobody_or_lost_a_use(sound: Evidence) -> None:
    assert not quota_kept(replace(sound, uses=[each for each in sound.uses if each.counted])).ok
    assert not quota_kept(replace(sound, usage_sums=[replace(sound.usage_sums[0], used=19)])).ok
    assert not quota_kept(replace(sound, usage_sums=[])).ok


def test_a_threshold_without_its_event_or_mailed_twice(sound: Evidence) -> None:
    assert not thresholds_mailed_once(without("AgencyQuotaThresholdCrossed")).ok
    crossed = next(event for event in sound_events() if isinstance(event[0], AgencyQuotaThresholdCrossed))
    assert not thresholds_mailed_once(with_more(crossed)).ok
    mail = next(d for d in sound.deliveries if d.rule == "agency-quota-threshold-crossed")
    unsent = [mail_id for mail_id in sound.mail_ids if mail_id != mail.id]
    assert not thresholds_mailed_once(replace(sound, mail_ids=unsent)).ok
    again = replace(mail, id="dlv_again")
    twice = replace(sound, deliveries=[*sound.deliveries, again], mail_ids=[*sound.mail_ids, again.id])
    assert not thresholds_mailed_once(twice).ok


def test_a_copy_that_answers_differently_or_was_not_asked(sound: Evidence) -> None:
    first, *rest = sound.comparisons
    other = replace(first, local=replace(first.local, verdict="refused"))
    assert not copy_agrees(replace(sound, comparisons=[other, *rest])).ok
    assert not copy_agrees(replace(sound, comparisons=rest)).ok


def test_an_instant_that_the_clock_never_showed(sound: Evidence) -> None:
    assert not trials_expired_once(replace(sound, instants=sound.instants - {TRIAL_END})).ok


def test_a_deadline_handled_late(sound: Evidence) -> None:
    assert not trials_expired_once(with_books(sound, "entitlements", late=1)).ok


def test_a_gap_in_the_log(sound: Evidence) -> None:
    assert not streams_gapless(replace(sound, facts=[*sound.facts[:6], *sound.facts[7:]])).ok


def test_an_event_out_of_order(sound: Evidence) -> None:
    seats = [fact for fact in sound.facts if fact.topic == "muster.entitlements.seat"]
    others = [fact for fact in sound.facts if fact not in seats]
    assert not streams_gapless(replace(sound, facts=[*others, seats[1], seats[0], *seats[2:]])).ok


def test_an_event_that_never_reached_the_log(sound: Evidence) -> None:
    assert not streams_gapless(replace(sound, facts=sound.facts[:-1])).ok


def test_an_event_that_was_sent_again_harms_nothing(sound: Evidence) -> None:
    assert streams_gapless(replace(sound, facts=[*sound.facts, sound.facts[0]])).ok
    assert effects_once(replace(sound, facts=[*sound.facts, sound.facts[0]])).ok


def test_a_service_that_is_behind(sound: Evidence) -> None:
    applied = dict(sound.books["notify"].applied)
    stream = next(iter(applied))
    assert not streams_applied(with_books(sound, "notify", applied={**applied, stream: (1, applied[stream][1] - 1)})).ok
    del applied[stream]
    assert not streams_applied(with_books(sound, "notify", applied=applied)).ok


def test_a_fact_that_came_twice_under_different_ids() -> None:
    assert not effects_once(with_more((seat(SeatAssigned, 3), START))).ok


@pytest.mark.parametrize("commands", [2, 4])
def test_a_command_that_was_not_carried_out_once(sound: Evidence, commands: int) -> None:
    assert not effects_once(with_books(sound, "enrollment", commands=commands)).ok


def test_an_intent_without_a_delivery(sound: Evidence) -> None:
    assert not one_delivery_per_intent(replace(sound, deliveries=sound.deliveries[1:])).ok


def test_a_rule_for_some_events_of_a_type_yields_no_intent_for_the_others() -> None:
    same: Any = {"agency_id": "NASA", "subject_ref": "sub_1", "feature": "agents", "used": 10, "quota": 10}
    period: Any = {"period_starts_at": START, "period_ends_at": YEAR_END}
    crossed = [(QuotaThresholdCrossed(**same, **period, threshold_percent=percent), START) for percent in (50, 100)]
    assert [[rule.name for rule in mail_rules(fact)] for fact in facts_of(crossed)] == [
        ["quota-threshold-crossed"],
        ["quota-threshold-crossed", "quota-used-up"],
    ]
    assert not any(mail_rules(fact) for fact in facts_of([(event, YEAR_END) for event, _ in crossed]))


def test_a_second_delivery_of_an_intent(sound: Evidence) -> None:
    again = replace(sound.deliveries[0], id="dlv_again")
    assert not one_delivery_per_intent(replace(sound, deliveries=[*sound.deliveries, again])).ok


def test_a_delivery_that_waits(sound: Evidence) -> None:
    waits = replace(sound.deliveries[0], state="pending")
    assert not one_delivery_per_intent(replace(sound, deliveries=[waits, *sound.deliveries[1:]])).ok


def test_a_signature_that_is_not_verified(sound: Evidence) -> None:
    forged = sound.messages[0].model_copy(update={"verified": False})
    assert not webhooks_verified(replace(sound, messages=[forged, *sound.messages[1:]])).ok


def test_a_message_that_never_arrived(sound: Evidence) -> None:
    assert not webhooks_verified(replace(sound, messages=sound.messages[1:])).ok


def test_messages_out_of_order(sound: Evidence) -> None:
    assert not webhooks_verified(replace(sound, messages=sound.messages[::-1])).ok


def test_an_e_mail_that_is_missing(sound: Evidence) -> None:
    assert not mails_arrived(replace(sound, mail_ids=sound.mail_ids[1:])).ok


def test_an_e_mail_that_nobody_sent(sound: Evidence) -> None:
    assert not mails_arrived(replace(sound, mail_ids=[*sound.mail_ids, "dlv_forged"])).ok


@pytest.mark.parametrize("left", ["outbox", "parked"])
def test_something_left_behind(sound: Evidence, left: str) -> None:
    assert not nothing_waits(with_books(sound, "billing", **{left: 1})).ok


def test_a_ledger_that_does_not_balance(sound: Evidence) -> None:
    assert not ledger_balances(replace(sound, ledger=[Entry(1, "USD", 100), Entry(1, "USD", -99)])).ok
    across = [Entry(1, "USD", 100), Entry(2, "USD", -100)]
    assert not ledger_balances(replace(sound, ledger=across)).ok
