"""JSON Schema 2020-12 of each event, and its golden examples as JSON and as raw Kafka records."""

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from muster_contracts.event import Erasure, Event, event_types
from muster_contracts.testing import GoldenRecord, golden_records
from muster_contracts.topics import topics

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


class SchemaGenerator(GenerateJsonSchema):
    """pydantic's generator, without the titles that only repeat a field's name."""

    def default_schema(self, schema: Any) -> JsonSchemaValue:
        """A default that a factory makes is a default, where the factory always makes the same."""
        made = super().default_schema(schema)
        factory = schema.get("default_factory")
        if factory is not None and not schema.get("default_factory_takes_data") and factory() == factory():
            made["default"] = self.encode_default(factory())
        return made

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never: the field's name says it."""
        return False


def documents() -> dict[str, str]:
    """Schemas and examples by path."""
    made = {f"schemas/{name}.json": as_json(schema_of(cls)) for name, cls in event_types().items()}
    for golden in golden_records():
        stem = f"examples/{golden.event.event_type}/{golden.example}"
        made[f"{stem}.json"] = as_json(data_of(golden))
        made[f"{stem}.record.json"] = as_json(record_of(golden))
    return made


def schema_of(event_class: type[Event]) -> Schema:
    """The schema of an event's data, with a stable identity and what its topic says of it."""
    schema = {
        "$schema": DIALECT,
        "$id": f"urn:muster:schema:{event_class.event_type}",
        **payload_schema(event_class),
        "x-topic": event_class.topic,
        "x-key": topics()[event_class.topic].key,
        "x-emitted": event_class.emitted,
        **deprecation_of(event_class),
    }
    return open_objects(schema)


def deprecation_of(event_class: type[Event]) -> Schema:
    """What documents say of an event that goes out of use, or was replaced unused; of any other, nothing."""
    if event_class.replaced_by is not None:
        return {"x-replaced-by": event_class.replaced_by}
    deprecation = event_class.deprecation
    if deprecation is None:
        return {}
    return {
        "deprecated": True,
        "x-deprecated-since": deprecation.since.isoformat(),
        "x-sunset": deprecation.sunset.isoformat(),
        "x-replaced-by": deprecation.replaced_by,
    }


def payload_schema(event_class: type[Event]) -> Schema:
    """The schema of the record's value; a tombstone has none."""
    schema = event_class.model_json_schema(mode="serialization", schema_generator=SchemaGenerator)
    if issubclass(event_class, Erasure):
        return {"title": schema["title"], "description": schema["description"], "type": "null"}
    return schema


def open_objects(schema: Schema) -> Schema:
    """Say in so many words that further properties may come: a reader ignores them."""
    opened: Schema = {name: _open_part(part) for name, part in schema.items()}
    if opened.get("type") == "object" and "properties" in opened:
        opened.setdefault("additionalProperties", True)  # a model that forbids them says so
    return opened


def _open_part(part: Any) -> Any:
    if isinstance(part, dict):
        return open_objects(part)
    return [_open_part(item) for item in part] if isinstance(part, list) else part


def data_of(golden: GoldenRecord) -> Any:
    """The record's value as JSON."""
    return json.loads(golden.record.value or b"null")


def record_of(golden: GoldenRecord) -> dict[str, Any]:
    """The raw record: all bytes of it are UTF-8, and are shown as text."""
    record = golden.record
    return {
        "topic": record.topic,
        "key": record.key.decode(),
        "headers": [[name, value.decode()] for name, value in record.headers],
        "value": None if record.value is None else record.value.decode(),
    }


def as_json(value: Any) -> str:
    """The one way in which documents are written: stable, and readable in a diff."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
