"""The AsyncAPI 3.0 document: every channel, message and operation."""

from typing import Any, Literal

from pydantic.json_schema import models_json_schema

from muster_contracts import __version__
from muster_contracts.event import Erasure, Event, event_types
from muster_contracts.generate.catalog import cataloged_topics
from muster_contracts.generate.schemas import Schema, SchemaGenerator, as_json, deprecation_of, open_objects
from muster_contracts.testing import Record, build, record
from muster_contracts.topics import Topic, topics

_COMPONENT = "#/components/schemas/{model}"
_BINDING_VERSION = "0.5.0"

_HEADERS: Schema = {
    "type": "object",
    "description": "CloudEvents 1.0 attributes in Kafka binary mode.",
    "required": [
        "ce_specversion",
        "ce_id",
        "ce_source",
        "ce_type",
        "ce_time",
        "ce_partitionkey",
        "ce_epoch",
        "ce_sequence",
        "ce_correlationid",
        "content-type",
    ],
    "properties": {
        "ce_specversion": {"type": "string", "const": "1.0", "description": "CloudEvents version."},
        "ce_id": {"type": "string", "description": "Unique per source, and stable across re-publications."},
        "ce_source": {"type": "string", "description": "The service that owns the fact."},
        "ce_type": {"type": "string", "description": "The event type with its major version."},
        "ce_time": {"type": "string", "format": "date-time", "description": "When the fact became true, UTC."},
        "ce_partitionkey": {"type": "string", "description": "The agency, which is the unit of order."},
        "ce_epoch": {
            "type": "string",
            "pattern": "^[1-9][0-9]*$",
            "description": "Increases after the producer is restored from a backup.",
        },
        "ce_sequence": {
            "type": "string",
            "pattern": "^[0-9]{20}$",
            "description": "Position in the stream of topic and agency, from 1 without gaps.",
        },
        "ce_correlationid": {"type": "string", "description": "The request that started the chain of events."},
        "ce_causationid": {"type": "string", "description": "The id of the event that caused this one."},
        "ce_traceparent": {"type": "string", "description": "W3C Trace Context."},
        "content-type": {"type": "string", "const": "application/json", "description": "Media type of the value."},
    },
}


def documents() -> dict[str, str]:
    """The document by its path."""
    return {"asyncapi.json": as_json(document())}


def document() -> dict[str, Any]:
    """The whole document; it refers to nothing outside itself."""
    channels = cataloged_topics()
    return {
        "asyncapi": "3.0.0",
        "id": "urn:muster:events",
        "info": {
            "title": "Muster events",
            "version": __version__,
            "description": (
                "The facts of a government-wide AI program: enrollments, seats, feature windows, terms, and invoices. "
                "Within a major version of a type, only optional fields are added; a reader ignores unknown fields."
            ),
            "tags": [{"name": owner} for owner in sorted({topic.owner for topic in channels})],
        },
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic) for topic in channels},
        "operations": {
            f"{'publish' if topic.producers == 'owner' else 'receive'}.{topic.name}": _operation(topic)
            for topic in channels
        },
        "components": {
            "schemas": {"Headers": _HEADERS, **_schemas()},
            "messages": {name: _message(cls) for name, cls in event_types().items()},
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    return {
        "address": topic.name,
        "title": topic.name,
        "description": f"{topic.description} Key: {topic.key}. Access: {topic.access}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in topic.events},
        "tags": [{"name": topic.owner}],
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": _configuration(topic),
                "bindingVersion": _BINDING_VERSION,
            }
        },
    }


def _configuration(topic: Topic) -> dict[str, Any]:
    configuration: dict[str, Any] = {"cleanup.policy": [topic.cleanup_policy], "retention.ms": topic.retention_ms}
    if topic.delete_retention_ms is not None:
        configuration["delete.retention.ms"] = topic.delete_retention_ms
    return configuration


def _operation(topic: Topic) -> dict[str, Any]:
    channel = f"#/channels/{topic.name}"
    if topic.producers == "others":
        title, summary = f"{topic.owner} receives from {topic.name}", "Systems outside Muster publish to it."
    else:
        title = f"{topic.owner} publishes to {topic.name}"
        summary = f"Read by {', '.join(topic.readers)}." if topic.readers else "No Muster service reads it."
    return {
        "action": "send" if topic.producers == "owner" else "receive",
        "title": title,
        "summary": summary,
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{name}"} for name in topic.events],
        "tags": [{"name": topic.owner}],
    }


def _message(event_class: type[Event]) -> dict[str, Any]:
    summary = (event_class.__doc__ or "").split("\n\n")[0]
    example = record(build(event_class))
    return {
        "name": event_class.event_type,
        "title": event_class.__name__,
        "summary": summary,
        "description": _status(event_class),
        "contentType": "application/json",
        "headers": {"$ref": "#/components/schemas/Headers"},
        "payload": {"$ref": _COMPONENT.format(model=event_class.__name__)},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": topics()[event_class.topic].key},
                "bindingVersion": _BINDING_VERSION,
            }
        },
        "examples": [_example(event_class, example)],
        # AsyncAPI has `deprecated` for schemas alone: of a message, its extensions say it.
        **{name: value for name, value in deprecation_of(event_class).items() if name.startswith("x-")},
    }


def _status(event_class: type[Event]) -> str:
    emitted = "Emitted today." if event_class.emitted else "Not emitted yet."
    if topics()[event_class.topic].producers == "others":
        emitted = "Reported by systems outside Muster."
    if event_class.replaced_by is not None:
        emitted = f"Never emitted: read {event_class.replaced_by} instead."
    deprecation = event_class.deprecation
    if deprecation is None:
        return emitted
    return (
        f"{emitted} Deprecated since {deprecation.since}, emitted until {deprecation.sunset}: "
        f"read {deprecation.replaced_by} instead."
    )


def _example(event_class: type[Event], example: Record) -> dict[str, Any]:
    headers = {name: value.decode() for name, value in example.headers}
    payload = None if issubclass(event_class, Erasure) else build(event_class).model_dump(mode="json")
    return {"name": "typical", "headers": headers, "payload": payload}


def _schemas() -> Schema:
    """One schema a model; what events share is there once."""
    models: list[tuple[type[Event], Literal["serialization"]]] = [
        (cls, "serialization") for cls in event_types().values() if not issubclass(cls, Erasure)
    ]
    _, definitions = models_json_schema(models, ref_template=_COMPONENT, schema_generator=SchemaGenerator)
    tombstones = {
        cls.__name__: {"type": "null", "description": "A tombstone has no value."}
        for cls in event_types().values()
        if issubclass(cls, Erasure)
    }
    schemas: Schema = {**open_objects(definitions["$defs"]), **tombstones}
    for cls in event_types().values():
        schemas[cls.__name__] |= deprecation_of(cls)
    return schemas
