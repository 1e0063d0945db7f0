"""The calendar of deprecations: documents say when an event goes out of use, and no record does."""

import json
from datetime import date

import pytest

from muster_contracts import Deprecation, event_types
from muster_contracts.billing import InvoiceIssued, TermStarted
from muster_contracts.compatibility import current, misread, refusals
from muster_contracts.entitlements import AgencyAccess, EntitlementSnapshotPublished
from muster_contracts.generate import documents

DEPRECATION = Deprecation(date(2027, 1, 15), date(2028, 1, 15), TermStarted.event_type)


def test_a_deprecated_event_is_replaced_by_one_that_is_not() -> None:
    for cls in event_types().values():
        if cls.deprecation is not None:
            assert event_types()[cls.deprecation.replaced_by].deprecation is None


def test_nothing_is_deprecated_and_the_calendar_says_so() -> None:
    assert not [cls for cls in event_types().values() if cls.deprecation is not None]
    made = documents()
    assert "## Deprecations\n\nNo event is deprecated.\n" in made["CATALOG.md"]
    assert "<p>No event is deprecated.</p>" in made["catalog.html"]


def test_every_document_shows_deprecations(monkeypatch: pytest.MonkeyPatch) -> None:
    before, released = documents(), current()
    monkeypatch.setattr(InvoiceIssued, "deprecation", DEPRECATION)
    made = documents()
    name, new = InvoiceIssued.event_type, TermStarted.event_type
    assert f"| `{name}` | 2027-01-15 | 2028-01-15 | `{new}` |" in made["CATALOG.md"]
    assert f"`{name}` · *deprecated since 2027-01-15, emitted until 2028-01-15*" in made["CATALOG.md"]
    assert f"<td><code>{name}</code></td><td>2027-01-15</td><td>2028-01-15</td>" in made["catalog.html"]
    said = {
        "deprecated": True,
        "x-deprecated-since": "2027-01-15",
        "x-sunset": "2028-01-15",
        "x-replaced-by": new,
    }
    assert json.loads(made[f"schemas/{name}.json"]).items() >= said.items()
    asyncapi = json.loads(made["asyncapi.json"])["components"]
    assert asyncapi["schemas"]["InvoiceIssued"].items() >= said.items()
    message = asyncapi["messages"][name]
    assert message["x-sunset"] == "2028-01-15"
    assert message["description"].endswith(f"emitted until 2028-01-15: read {new} instead.")
    # Neither the examples nor what the compatibility check compares changes.
    assert {path for path in made if made[path] != before[path]} == {
        *("CATALOG.md", "catalog.html", "asyncapi.json"),
        f"schemas/{name}.json",
    }
    assert [*refusals(released, current()), *misread(released, current())] == []


def test_nobody_waits_for_an_event_that_was_replaced_before_it_was_emitted() -> None:
    replaced = [cls for cls in event_types().values() if cls.replaced_by is not None]
    assert replaced == [EntitlementSnapshotPublished]
    name, new = EntitlementSnapshotPublished.event_type, AgencyAccess.event_type
    assert (EntitlementSnapshotPublished.replaced_by, EntitlementSnapshotPublished.emitted) == (new, False)
    made = documents()
    assert f"`{name}` · *never emitted: read {new} instead*" in made["CATALOG.md"]
    assert f'<span class="later">never emitted: read {new} instead</span>' in made["catalog.html"]
    assert json.loads(made[f"schemas/{name}.json"])["x-replaced-by"] == new
    message = json.loads(made["asyncapi.json"])["components"]["messages"][name]
    assert (message["x-replaced-by"], f"Never emitted: read {new} instead." in message["description"]) == (new, True)


def test_a_sunset_comes_after_the_deprecation() -> None:
    with pytest.raises(ValueError, match="sunset 2027-01-15 must be after since 2027-01-15"):
        Deprecation(date(2027, 1, 15), date(2027, 1, 15), TermStarted.event_type)
