"""The generated documents match the models, are valid, and are free of personal data."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator, meta

from muster_contracts import Decoded, Erasure, Event, decode, encode, event_types, topics
from muster_contracts.generate import documents
from muster_contracts.generate.__main__ import check, write
from muster_contracts.testing import EXAMPLES, build

CONTRACTS = Path(__file__).parents[2] / "contracts"

EVENTS = [pytest.param(cls, id=cls.__name__) for cls in event_types().values()]
FACTS = [pytest.param(cls, id=cls.__name__) for cls in event_types().values() if not issubclass(cls, Erasure)]
PUBLIC_TYPES = [
    pytest.param(name, id=name) for topic in topics().values() if topic.access == "public" for name in topic.events
]


def schema_of(event_type: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((CONTRACTS / f"schemas/{event_type}.json").read_text("utf-8"))
    return schema


def test_committed_documents_match_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert check(CONTRACTS) == 0, capsys.readouterr().err


def test_documents_are_the_same_whenever_they_are_generated() -> None:
    assert documents() == documents()


def test_drift_is_named_and_repaired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(CONTRACTS / "schemas", tmp_path / "schemas")
    changed = tmp_path / "schemas/muster.billing.TermStarted.v1.json"
    changed.write_text(changed.read_text("utf-8").replace("integer", "string"), encoding="utf-8")
    stale = tmp_path / "schemas/muster.billing.Forgotten.v1.json"
    stale.write_text("{}", encoding="utf-8")

    assert check(tmp_path) == 1
    complaint = capsys.readouterr().err
    assert "muster.billing.TermStarted.v1.json differs from the models" in complaint
    assert "muster.billing.Forgotten.v1.json is of no model" in complaint

    write(tmp_path)
    assert not stale.exists()
    assert check(tmp_path) == 0


@pytest.mark.parametrize("event_class", EVENTS)
def test_schema_is_valid_json_schema_2020_12(event_class: type[Event]) -> None:
    schema = schema_of(event_class.event_type)
    meta.validate(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:muster:schema:{event_class.event_type}"


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("event_class", EVENTS)
def test_example_validates_against_its_schema(event_class: type[Event], example: str) -> None:
    validator = Draft202012Validator(schema_of(event_class.event_type), validate_formats=True)
    validator.validate(json.loads((CONTRACTS / f"examples/{event_class.event_type}/{example}.json").read_text("utf-8")))


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("event_class", EVENTS)
def test_raw_record_decodes_to_its_example_and_back(event_class: type[Event], example: str) -> None:
    folder = CONTRACTS / "examples" / event_class.event_type
    raw = json.loads((folder / f"{example}.record.json").read_text("utf-8"))
    value = None if raw["value"] is None else raw["value"].encode()

    decoded = decode([(name, text.encode()) for name, text in raw["headers"]], value, raw["key"].encode())

    assert isinstance(decoded, Decoded)
    assert type(decoded.event) is event_class
    assert encode(decoded.event) == value
    assert decoded.event.record_key == raw["key"]
    assert decoded.event.topic == raw["topic"]
    assert json.loads(value or b"null") == json.loads((folder / f"{example}.json").read_text("utf-8"))


@pytest.mark.parametrize("event_class", FACTS)
def test_schema_refuses_what_the_model_refuses(event_class: type[Event]) -> None:
    validator = Draft202012Validator(schema_of(event_class.event_type))
    typical = build(event_class).model_dump(mode="json")
    for name, field in event_class.model_fields.items():
        without = {key: value for key, value in typical.items() if key != name}
        assert validator.is_valid(without) is not field.is_required(), name
        assert not validator.is_valid(typical | {name: {"unexpected": []}}), name


@pytest.mark.parametrize("event_class", FACTS)
def test_every_field_has_a_meaning_and_examples(event_class: type[Event]) -> None:
    assert event_class.__doc__
    assert "emitted" in event_class.__doc__.lower()
    schema = schema_of(event_class.event_type)
    for part in (schema, *schema.get("$defs", {}).values()):
        for name, field in part.get("properties", {}).items():
            assert field.get("description"), name
            assert field.get("examples"), name
            if field.get("format") == "date-time":
                assert "UTC" in field["description"], f"{name} does not name its time zone"


PERSONAL = ("name", "email", "e-mail", "address", "phone")


def personal_fields(schema: dict[str, Any]) -> list[str]:
    """The fields of a schema that are named or described as personal data."""
    parts = (schema, *schema.get("$defs", {}).values())
    return [
        name
        for part in parts
        for name, field in part.get("properties", {}).items()
        if name != "agency_name" and any(word in f"{name} {field.get('description', '')}".lower() for word in PERSONAL)
    ]


@pytest.mark.parametrize("event_type", PUBLIC_TYPES)
def test_no_personal_data_on_a_public_topic(event_type: str) -> None:
    assert personal_fields(schema_of(event_type)) == []


def test_personal_data_is_recognized_where_it_is_allowed() -> None:
    assert personal_fields(schema_of("muster.enrollment.ContactRecorded.v1")) == ["name", "email"]


@pytest.mark.parametrize("event_type", PUBLIC_TYPES)
def test_people_appear_only_as_references(event_type: str) -> None:
    properties = schema_of(event_type).get("properties", {})  # a tombstone has none
    people = [name for name in properties if re.search("person|user|subject|signer|holder|contact", name)]
    assert all(name.endswith("_ref") for name in people), people


def test_asyncapi_holds_every_event_and_refers_to_nothing_missing() -> None:
    text = (CONTRACTS / "asyncapi.json").read_text("utf-8")
    document = json.loads(text)
    assert document["asyncapi"] == "3.0.0"
    assert set(document["components"]["messages"]) == set(event_types())
    for reference in _references(document):
        assert reference.startswith("#/"), reference
        target = document
        for step in reference[2:].split("/"):
            target = target[step]


def _references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [reference for value in part.values() for reference in _references(value)]
    return [reference for item in part for reference in _references(item)] if isinstance(part, list) else []


def test_catalogs_name_every_event_and_load_nothing_from_elsewhere() -> None:
    markdown = (CONTRACTS / "CATALOG.md").read_text("utf-8")
    page = (CONTRACTS / "catalog.html").read_text("utf-8")
    for event_class in event_types().values():
        assert f"`{event_class.event_type}`" in markdown
        assert f'id="{event_class.event_type}"' in page
    for loading in ("http:", "https:", "<script", "<link", "<img", "url("):
        assert loading not in page
