"""The compatibility gate: what may change within a major version, and what is refused and how."""

import json
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field

from muster_contracts import Event, topics
from muster_contracts.compatibility import Release, current, refusals, unreadable
from muster_contracts.generate.schemas import schema_of
from muster_contracts.types import Instant, Money, Open

RELEASED = Path(__file__).parents[2] / "contracts/released"
TYPE = "muster.billing.Sampled.v1"
TOPIC = "muster.billing.term"


class Colour(StrEnum):
    """An open list of the sample."""

    RED = "red"
    BLUE = "blue"


class Size(StrEnum):
    """A closed list of the sample."""

    SMALL = "small"
    LARGE = "large"


class Item(BaseModel):
    """What the sample has a list of."""

    code: str = Field(description="A code.", pattern="^[a-z]+$")
    count: int = Field(description="How many.", ge=1, le=9)
    colour: Open[Colour] = Field(description="A colour.")
    note: str | None = Field(default=None, description="A note.")


class Sampled(Event):
    """An event with one of everything."""

    event_type: ClassVar[str] = TYPE
    topic: ClassVar[str] = TOPIC

    label: str = Field(description="A label.", max_length=40)
    count: int = Field(description="How many.", ge=1)
    share: float = Field(description="A share.", ge=0, le=1)
    done: bool = Field(description="Whether it is.")
    at: Instant
    price: Money
    colour: Open[Colour] = Field(description="A colour.")
    size: Size = Field(description="A size.")
    quota: int | None = Field(default=None, description="A quota.")
    level: int = Field(default=1, description="A level.")
    tags: list[str] = Field(description="Tags.")
    items: list[Item] = Field(description="Items.")


def release() -> Release:
    """A release with the sample alone."""
    settings = topics()[TOPIC].model_dump(mode="json")
    return {"version": "1.0.0", "topics": {TOPIC: settings}, "schemas": {TYPE: schema_of(Sampled)}, "records": []}


Change = Callable[[Release], Any]


def put(path: str, value: Any) -> Change:
    """Set what a path of the sample's schema leads to."""

    def change(changed: Release) -> None:
        *steps, last = path.split("/")
        part = changed["schemas"][TYPE]
        for step in steps:
            part = part[int(step)] if isinstance(part, list) else part[step]
        part[last] = value

    return change


def drop(path: str) -> Change:
    """Remove what a path of the sample's schema leads to, and its name from what is required."""

    def change(changed: Release) -> None:
        *steps, last = path.split("/")
        part = changed["schemas"][TYPE]
        parents = [part]
        for step in steps:
            part = part[int(step)] if isinstance(part, list) else part[step]
            parents.append(part)
        del part[int(last) if isinstance(part, list) else last]
        if steps and steps[-1] == "properties" and last in parents[-2]["required"]:
            parents[-2]["required"].remove(last)

    return change


def require(name: str, *, of: str = "") -> Change:
    """Make a field required."""
    return lambda changed: _object(changed, of)["required"].append(name)


def relax(name: str, *, of: str = "") -> Change:
    """Make a field optional."""
    return lambda changed: _object(changed, of)["required"].remove(name)


def _object(changed: Release, of: str) -> Any:
    schema = changed["schemas"][TYPE]
    return schema["$defs"][of] if of else schema


def all_of(*changes: Change) -> Change:
    """Several changes at once."""
    return lambda changed: [change(changed) for change in changes]


def rename(path: str, new: str) -> Change:
    """Rename a required field."""
    parent, _, _ = path.rpartition("/")
    return all_of(drop(path), put(f"{parent}/{new}", {"type": "string"}), require(new))


def topic(setting: str, value: Any) -> Change:
    """Change a setting of the topic."""
    return lambda changed: changed["topics"][TOPIC].update({setting: value})


NULLABLE: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "null"}]}
OPTIONAL = {"type": "string", "default": "", "description": "Added later."}

REFUSED: list[tuple[str, Change, str, str]] = [
    ("field added required", all_of(put("properties/new", {"type": "string"}), require("new")), "new", "as required"),
    ("field added without default", put("properties/new", {"type": "string"}), "new", "without a default"),
    ("field removed", drop("properties/label"), "label", "removed or renamed"),
    ("optional field removed", drop("properties/quota"), "quota", "removed or renamed"),
    ("field renamed", rename("properties/label", "title"), "label", "removed or renamed"),
    ("field became optional", relax("label"), "label", "became optional"),
    ("field became required", require("level"), "level", "became required"),
    ("number to string", put("properties/count", {"type": "string"}), "count", "type changed from integer to string"),
    ("string to number", put("properties/label/type", "number"), "label", "type changed from string to number"),
    ("integer to number", put("properties/count/type", "number"), "count", "type changed from integer to number"),
    ("boolean to string", put("properties/done/type", "string"), "done", "type changed from boolean to string"),
    ("object to string", put("properties/price", {"type": "string"}), "price", "type changed from object to string"),
    ("instant to text", drop("properties/at/format"), "at", "format changed from date-time to none"),
    ("text to list of it", put("properties/label", {"type": "array", "items": {}}), "label", "type changed"),
    ("lower bound raised", put("properties/count/minimum", 2), "count", "minimum changed from 1 to 2"),
    ("lower bound lowered", put("properties/count/minimum", 0), "count", "minimum changed from 1 to 0"),
    ("upper bound lowered", put("properties/share/maximum", 0.5), "share", "maximum changed"),
    ("upper bound removed", drop("properties/share/maximum"), "share", "maximum changed from 1 to none"),
    ("bound added", put("properties/count/maximum", 10), "count", "maximum changed from none to 10"),
    ("length narrowed", put("properties/label/maxLength", 20), "label", "maxLength changed from 40 to 20"),
    ("pattern changed", put("properties/agency_id/pattern", "^.*$"), "agency_id", "pattern changed"),
    ("pattern added", put("properties/label/pattern", "^x"), "label", "pattern changed from none"),
    ("default changed", put("properties/level/default", 2), "level", "default changed from 1 to 2"),
    ("default removed", drop("properties/level/default"), "level", "default changed from 1 to none"),
    (
        "null allowed",
        put("properties/label", {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        "label",
        "type changed",
    ),
    ("null refused", put("properties/quota", {"type": "integer", "default": None}), "quota", "type changed"),
    ("value removed", drop("$defs/Colour/enum/1"), "colour", "value removed: blue"),
    ("value renamed", put("$defs/Colour/enum", ["red", "azure"]), "colour", "value removed: blue"),
    ("list closed", put("properties/colour", {"$ref": "#/$defs/Colour"}), "colour", "list of values is closed"),
    ("list opened", put("properties/size", {"type": "string"}), "size", "list of values is opened"),
    ("value added to a closed list", put("$defs/Size/enum", ["small", "large", "huge"]), "size", "closed list: huge"),
    ("value removed from a closed list", drop("$defs/Size/enum/0"), "size", "value removed: small"),
    ("object closed", put("additionalProperties", False), "", "additionalProperties changed"),
    ("nested field removed", drop("$defs/Money/properties/currency"), "price.currency", "removed or renamed"),
    ("nested type changed", put("$defs/Money/properties/amount_minor/type", "string"), "price.amount_minor", "type"),
    (
        "nested pattern changed",
        put("$defs/Money/properties/currency/pattern", "^[a-z]{3}$"),
        "price.currency",
        "pattern",
    ),
    ("nested field required", require("note", of="Item"), "items[].note", "became required"),
    (
        "list items retyped",
        put("properties/tags/items/type", "integer"),
        "tags[]",
        "type changed from string to integer",
    ),
    ("list items bound", put("$defs/Item/properties/count/maximum", 5), "items[].count", "maximum changed from 9 to 5"),
    ("list items closed", put("$defs/Item/properties/colour", {"$ref": "#/$defs/Colour"}), "items[].colour", "closed"),
    ("list bounded", put("properties/tags/maxItems", 3), "tags", "maxItems changed from none to 3"),
    ("type renamed", lambda changed: changed["schemas"].update({"x.v1": changed["schemas"].pop(TYPE)}), "", "gone"),
    ("event moved to another topic", put("x-topic", "muster.billing.other"), "", "topic changed"),
    ("event keyed otherwise", put("x-key", "subject_ref"), "", "key changed from agency_id to subject_ref"),
    ("topic gone", lambda changed: changed["topics"].clear(), "", "topic is gone or renamed"),
    ("topic's key", topic("key", "subject_ref"), "key", "key changed from agency_id to subject_ref"),
    ("topic's partitions", topic("partitions", 24), "partitions", "partitions changed from 12 to 24"),
    ("topic compacted", topic("cleanup_policy", "compact"), "cleanup_policy", "changed from delete to compact"),
    ("topic's retention", topic("retention_ms", 1000), "retention_ms", "changed from -1 to 1000"),
    ("topic restricted", topic("access", "restricted"), "access", "changed from public to restricted"),
    ("topic's owner", topic("owner", "notify"), "owner", "changed from billing to notify"),
]

ACCEPTED: list[tuple[str, Change]] = [
    ("nothing", lambda changed: None),
    ("optional text added", put("properties/new", OPTIONAL)),
    ("optional number added", put("properties/new", {"type": "integer", "default": 0, "minimum": 0})),
    ("optional null added", put("properties/new", NULLABLE | {"default": None})),
    ("optional list added", put("properties/new", {"type": "array", "items": {"type": "string"}, "default": []})),
    ("optional object added", put("properties/new", {"$ref": "#/$defs/Money", "default": None})),
    ("optional field added within", put("$defs/Money/properties/new", OPTIONAL)),
    ("optional field added to list items", put("$defs/Item/properties/new", OPTIONAL)),
    ("value added to an open list", put("$defs/Colour/enum", ["red", "blue", "green"])),
    ("values told in another order", put("$defs/Colour/enum", ["blue", "red"])),
    ("text becomes an open list", put("properties/label/anyOf", [{"$ref": "#/$defs/Colour"}, {"type": "string"}])),
    ("description of a field", put("properties/label/description", "Better words.")),
    ("description of the event", put("description", "Better words.")),
    ("description within", put("$defs/Money/properties/currency/description", "Better words.")),
    ("examples", put("properties/label/examples", ["an example"])),
    ("title", put("title", "Another")),
    ("emitted from now on", put("x-emitted", False)),
    ("definition moved inline", lambda changed: _inline(changed)),
    ("definition renamed", lambda changed: _rename_definition(changed)),
    ("fields in another order", lambda changed: _reverse(changed)),
    ("required in another order", lambda changed: changed["schemas"][TYPE]["required"].reverse()),
    ("event added", lambda changed: changed["schemas"].update({"muster.billing.New.v1": schema_of(Sampled)})),
    ("major added beside", lambda changed: changed["schemas"].update({"muster.billing.Sampled.v2": {"type": "null"}})),
    ("topic added", lambda changed: changed["topics"].update({"muster.billing.new": {}})),
    ("reader added", topic("readers", ["entitlements", "notify", "audit"])),
    ("topic's description", topic("description", "Better words.")),
]


def _inline(changed: Release) -> None:
    schema = changed["schemas"][TYPE]
    schema["properties"]["price"] = deepcopy(schema["$defs"].pop("Money"))


def _rename_definition(changed: Release) -> None:
    schema = changed["schemas"][TYPE]
    schema["$defs"]["Amount"] = schema["$defs"].pop("Money")
    schema["properties"]["price"]["$ref"] = "#/$defs/Amount"


def _reverse(changed: Release) -> None:
    schema = changed["schemas"][TYPE]
    schema["properties"] = dict(reversed(schema["properties"].items()))


@pytest.mark.parametrize(("change", "field", "rule"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
def test_a_breaking_change_is_refused_by_subject_field_and_rule(change: Change, field: str, rule: str) -> None:
    today = release()
    change(today)
    (refusal,) = [found for found in refusals(release(), today) if found.field == field and rule in found.rule]
    assert refusal.subject in {TYPE, TOPIC}
    assert refusal.instead


@pytest.mark.parametrize("change", [pytest.param(row[1], id=row[0]) for row in ACCEPTED])
def test_a_harmless_change_is_accepted(change: Change) -> None:
    today = release()
    change(today)
    for schema in today["schemas"].values():
        Draft202012Validator.check_schema(schema)
    assert refusals(release(), today) == []


def test_a_refusal_says_what_to_do_instead() -> None:
    today = release()
    drop("properties/label")(today)
    (refusal,) = refusals(release(), today)
    assert str(refusal) == (
        "muster.billing.Sampled.v1, label: the field is removed or renamed. "
        "Instead: keep it; else add muster.billing.Sampled.v2 beside it, and leave v1 as it was."
    )


def test_a_choice_between_objects_is_refused_at_once() -> None:
    today = release()
    put("properties/price", {"anyOf": [{"$ref": "#/$defs/Money"}, {"$ref": "#/$defs/Item"}]})(today)
    with pytest.raises(ValueError, match="cannot be compared"):
        refusals(release(), today)


RELEASES = [pytest.param(path, id=path.stem) for path in sorted(RELEASED.glob("*.json"))]


def test_something_is_released() -> None:
    assert RELEASES


@pytest.mark.parametrize("path", RELEASES)
def test_todays_models_live_with_every_release_both_ways(path: Path) -> None:
    released = json.loads(path.read_text("utf-8"))
    today = current()
    assert refusals(released, today) == []
    assert unreadable(released) == []
    for event_type, schema in released["schemas"].items():
        _validate(released["records"], event_type, today["schemas"][event_type])
        _validate(today["records"], event_type, schema)


def _validate(records: list[dict[str, Any]], event_type: str, schema: dict[str, Any]) -> None:
    matching = [record for record in records if dict(record["headers"])["ce_type"] == event_type]
    assert matching
    for record in matching:
        Draft202012Validator(schema).validate(json.loads(record["value"] or "null"))


def test_a_released_record_that_is_no_longer_read_is_told() -> None:
    released = current()
    seat = next(record for record in released["records"] if "SeatAssigned" in str(record["headers"]))
    seat["value"] = seat["value"].replace("seat_id", "chair_id")
    (refusal,) = unreadable(released)
    assert refusal.subject == "muster.entitlements.SeatAssigned.v1"
    assert "seat_id: Field required" in refusal.rule


def gate(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The gate as it is run by hand and in CI."""
    command = [sys.executable, "-m", "muster_contracts.compatibility", "--directory", str(directory), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_gate_passes_keeps_a_release_and_refuses_a_planted_change(tmp_path: Path) -> None:
    kept = gate(tmp_path, "--release")
    assert kept.returncode == 0, kept.stderr
    (path,) = tmp_path.iterdir()
    assert gate(tmp_path).returncode == 0

    again = gate(tmp_path, "--release")
    assert again.returncode == 1
    assert "is released already: raise __version__" in again.stderr

    released = json.loads(path.read_text("utf-8"))
    released["schemas"]["muster.billing.TermStarted.v1"]["properties"]["number"]["minimum"] = 0
    path.write_text(json.dumps(released), encoding="utf-8")
    refused = gate(tmp_path)
    assert refused.returncode == 1
    assert "since 0.1.0: muster.billing.TermStarted.v1, number: minimum changed from 0 to 1" in refused.stderr
    assert "add muster.billing.TermStarted.v2 beside it" in refused.stderr
