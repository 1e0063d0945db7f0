"""Events in plain words, whatever valid data they carry."""

import pytest

from muster_contracts import read_headers
from muster_contracts.event import Event, event_types
from muster_contracts.testing import EXAMPLES, Example, build, record
from muster_local.demo.facts import in_words
from muster_local.demo.log import Fact
from muster_local.demo.proof.deliveries import mail_rules

FREQUENT = {"SeatAssigned", "SeatActivated", "SeatRevoked"}
PERSONAL = {"muster.enrollment.directory", "muster.entitlements.directory"}


def _fact(event: Event) -> Fact:
    return Fact(event.topic, read_headers(record(event).headers), event.model_dump(mode="json"))


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("event_class", event_types().values(), ids=event_types())
def test_every_event_has_words_or_is_skipped_whatever_its_data(event_class: type[Event], example: Example) -> None:
    fact = _fact(build(event_class, example=example))
    words = in_words(fact)
    assert words is None or (words.startswith(fact.envelope.agency_id) and words.endswith("."))


@pytest.mark.parametrize("event_class", event_types().values(), ids=event_types())
def test_nothing_frequent_or_personal_is_reported(event_class: type[Event]) -> None:
    fact = _fact(build(event_class))
    if fact.name in FREQUENT or fact.topic in PERSONAL:
        assert in_words(fact) is None


def test_an_invoice_in_words() -> None:
    issued = build(event_types()["muster.billing.InvoiceIssued.v1"], agency_id="NASA", invoice_number="NASA-2025-01")
    assert in_words(_fact(issued)) == "NASA receives invoice NASA-2025-01 for 1.00 USD."


def test_no_mail_is_due_about_an_erasure_which_has_no_data() -> None:
    erased = build(event_types()["muster.entitlements.PersonErased.v1"])
    assert mail_rules(Fact(erased.topic, read_headers(record(erased).headers), None)) == []
