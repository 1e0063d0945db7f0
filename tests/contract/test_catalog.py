"""The catalog as a whole: types, topics, owners, readers, and the `emitted` flag."""

import re
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path

import pytest

from muster_contracts import SERVICES, ClockMoved, Erasure, Event, event_types, split_type, topics
from muster_contracts import event as event_module
from muster_contracts.audit import NO_SEAL
from muster_contracts.envelope import MalformedRecord
from muster_contracts.event import find_event, latest_major
from muster_runtime.observability.seals import Seal

ROOT = Path(__file__).parents[2]

EVENTS = [pytest.param(cls, id=cls.__name__) for cls in event_types().values()]
TOPICS = [pytest.param(topic, id=topic) for topic in topics()]


@pytest.mark.parametrize("event_class", EVENTS)
def test_a_type_is_written_out_and_names_its_topics_owner(event_class: type[Event]) -> None:
    module = ROOT / "contracts" / (event_class.__module__.replace(".", "/") + ".py")
    assert f'event_type: ClassVar[str] = "{event_class.event_type}"' in module.read_text("utf-8")
    owner = topics()[event_class.topic].owner
    assert event_class.event_type.startswith(f"muster.{owner}.")
    assert event_class.topic.startswith(f"muster.{owner}.")
    assert event_class.__module__.split(".")[:2] == ["muster_contracts", owner]


@pytest.mark.parametrize("name", TOPICS)
def test_every_topic_has_events(name: str) -> None:
    """The sandbox's clock is not an event, because it belongs to no agency."""
    assert topics()[name].events or name == ClockMoved.topic


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_is_named_after_its_file_and_read_by_services_other_than_its_owner(name: str) -> None:
    topic = topics()[name]
    assert (ROOT / f"contracts/muster_contracts/topics/{name}.toml").exists()
    # Notify's rules turn its own facts into e-mails and webhooks like any other's.
    assert topic.owner not in topic.readers or topic.name == "muster.notify.delivery"
    assert set(topic.readers) <= set(SERVICES)
    assert len(set(topic.readers)) == len(topic.readers)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_reads_exactly_the_topics_that_name_it_as_a_reader(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Production requires secrets, which do not matter here.
    monkeypatch.setenv("MUSTER_ENVIRONMENT", "sandbox")
    described = import_module(f"muster_{service}.bootstrap").build()
    named = {topic.name for topic in topics().values() if service in topic.readers}
    assert {cls.topic for cls in described.subscriptions} == named - {ClockMoved.topic}
    reported = {topic.name for topic in topics().values() if topic.owner == service and topic.producers == "others"}
    assert {*described.intakes} == reported


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_publishes_the_seals_of_its_audit(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSTER_ENVIRONMENT", "sandbox")
    described = import_module(f"muster_{service}.bootstrap").build()
    seal = Seal("*", 1, 1, 1, 1, NO_SEAL, NO_SEAL, datetime(2025, 8, 6, tzinfo=UTC))
    published = described.audit_sealed(**seal.facts)
    assert published.topic == f"muster.{service}.audit"
    assert published.topic in described.produces
    assert published.model_dump() == seal.facts


@pytest.mark.parametrize("name", TOPICS)
def test_facts_are_kept_forever_and_only_compacted_topics_have_tombstones(name: str) -> None:
    topic = topics()[name]
    erasures = [cls for cls in event_types().values() if cls.topic == name and issubclass(cls, Erasure)]
    # Records from outside producers are kept until they are counted.
    assert topic.retention_ms == (-1 if topic.producers == "owner" else 7 * 86_400_000)
    assert topic.compacted or not erasures
    assert topic.compacted == (topic.key in {"subject_ref", "scope_ref", "catalog_id"})


@pytest.mark.parametrize("name", [name for name, topic in topics().items() if topic.compacted])
def test_a_tombstone_outlasts_a_reader_that_is_away_for_years(name: str) -> None:
    """Kafka's default is a day: a reader that was away longer, or was restored, would keep erased people."""
    five_years = timedelta(days=5 * 365 + 1)
    assert topics()[name].settings["delete.retention.ms"] == str(int(five_years.total_seconds() * 1000))


def test_nothing_is_deleted_because_of_its_size() -> None:
    assert {topic.settings["retention.bytes"] for topic in topics().values()} == {"-1"}


def test_personal_data_has_its_own_restricted_topics() -> None:
    audits = {f"muster.{service}.audit" for service in SERVICES}
    restricted = {topic.name for topic in topics().values() if topic.access == "restricted"}
    directories = {"muster.enrollment.directory", "muster.entitlements.directory"}
    assert restricted == directories | audits | {"muster.sandbox.clock", "muster.entitlements.usage"}


@pytest.mark.parametrize("event_class", EVENTS)
def test_emitted_says_whether_the_owner_publishes_it(event_class: type[Event]) -> None:
    owner = topics()[event_class.topic].owner
    name = event_class.__name__
    made = re.compile(rf"\b{name}(\.model_construct)?\(|\b(audit_sealed=|publish_encoded\(){name}\b")
    sources = sorted((ROOT / "services" / owner / f"muster_{owner}").rglob("*.py"))
    assert sources
    publishes = any(made.search(source.read_text("utf-8")) for source in sources)
    assert event_class.emitted is publishes


def test_a_type_has_a_form_and_is_registered_once() -> None:
    assert split_type("muster.billing.TermStarted.v12") == ("muster.billing.TermStarted", 12)
    for foreign in ("TermStarted", "x.v1", "a.v1\n"):
        assert split_type(foreign) is None
    for malformed in ("muster.billing.TermStarted", "muster.billing.TermStarted.v0"):
        with pytest.raises(MalformedRecord):
            split_type(malformed)
    assert latest_major("muster.billing.TermStarted") == 1
    assert latest_major("muster.billing.Unknown") is None
    assert find_event("muster.billing.TermStarted.v1") is not None

    class Again(Event):
        event_type = "muster.billing.TermStarted.v1"
        topic = "muster.billing.term"

    with pytest.raises(ValueError, match="registered twice"):
        event_module.event(Again)

    class Odd(Event):
        event_type = "TermStarted"
        topic = "muster.billing.term"

    with pytest.raises(ValueError, match="is not muster"):
        event_module.event(Odd)
