"""The catalog in Markdown: topics, events, and their fields."""

import json
from dataclasses import dataclass
from typing import Any

from muster_contracts.event import Deprecation, Event, event_types
from muster_contracts.generate.schemas import Schema, schema_of
from muster_contracts.testing import build
from muster_contracts.topics import Topic, topics


@dataclass(frozen=True)
class FieldRow:
    """The catalog's row about a field."""

    name: str
    type: str
    required: bool
    meaning: str
    example: str


@dataclass(frozen=True)
class EventEntry:
    """The catalog's entry about an event."""

    name: str
    type: str
    emitted: bool
    reported: bool
    replaced_by: str | None
    deprecation: Deprecation | None
    meaning: str
    when: str
    fields: list[FieldRow]
    tombstone: bool
    example: str


def documents() -> dict[str, str]:
    """The catalog by its path."""
    return {"CATALOG.md": _markdown()}


def cataloged_topics() -> list[Topic]:
    """The topics with facts about agencies; the sandbox's clock is not one, and absent in production."""
    return [topic for topic in topics().values() if topic.owner != "sandbox"]


def entries(topic: Topic) -> list[EventEntry]:
    """The events of a topic, in the order of its file."""
    return [_entry(event_types()[name]) for name in topic.events]


def deprecations() -> list[tuple[str, Deprecation]]:
    """The calendar: each type that goes out of use, those that are emitted for the shortest time first."""
    found = [(name, cls.deprecation) for name, cls in event_types().items() if cls.deprecation is not None]
    return sorted(found, key=lambda each: (each[1].sunset, each[0]))


def _entry(event_class: type[Event]) -> EventEntry:
    schema = schema_of(event_class)
    meaning, _, when = schema["description"].partition("\n\n")
    required = schema.get("required", [])
    return EventEntry(
        name=event_class.__name__,
        type=event_class.event_type,
        emitted=event_class.emitted,
        reported=topics()[event_class.topic].producers == "others",
        replaced_by=event_class.replaced_by,
        deprecation=event_class.deprecation,
        meaning=_one_line(meaning),
        when=_one_line(when),
        fields=[
            FieldRow(
                name,
                type_of(field, schema.get("$defs", {})),
                name in required,
                field.get("description", ""),
                json.dumps(field["examples"][0], ensure_ascii=False),
            )
            for name, field in schema.get("properties", {}).items()
        ],
        tombstone=schema["type"] == "null",
        example=json.dumps(build(event_class).model_dump(mode="json"), indent=2, ensure_ascii=False),
    )


def type_of(schema: Schema, definitions: dict[str, Any]) -> str:
    """A field's type, as a reader of the catalog sees it."""
    if "$ref" in schema:
        return type_of_definition(schema["$ref"].rsplit("/", 1)[1], definitions)
    if "anyOf" in schema:
        parts = [type_of(part, definitions) for part in schema["anyOf"]]
        closed = [part for part in parts if part.startswith("one of")]
        if closed and "string" in parts:
            return f"{closed[0]}; new values may be added"
        return " or ".join(parts)
    if schema.get("format") == "date-time":
        return "instant"
    if schema["type"] == "array":
        return f"list of {type_of(schema['items'], definitions)}"
    kind: str = schema["type"]
    bounds = [f"{sign} {schema[key]}" for key, sign in (("minimum", "≥"), ("maximum", "≤")) if key in schema]
    return " ".join([kind, *bounds])


def type_of_definition(name: str, definitions: dict[str, Any]) -> str:
    """A type that several fields share: the values of a list, or the fields of an object."""
    definition = definitions[name]
    if "enum" in definition:
        return "one of " + ", ".join(definition["enum"])
    return "{" + ", ".join(definition["properties"]) + "}"


def _markdown() -> str:
    lines = [
        "# Catalog of Muster's events",
        "",
        "Generated from the models by `python -m muster_contracts.generate`; do not edit.",
        "",
        "| Topic | Owner | Contents | Key | Partitions | Retention | Access | Read by |",
        "|---|---|---|---|---|---|---|---|",
        *(_topic_row(topic) for topic in cataloged_topics()),
        "",
        "A *stream* is one agency's events on one topic. `ce_sequence` numbers them from 1 without gaps.",
        "Instants are RFC 3339, UTC, with a Z. A start is inclusive, an end exclusive.",
        "",
        *_calendar(),
    ]
    for topic in cataloged_topics():
        lines += [f"## {topic.name}", "", topic.description, ""]
        for entry in entries(topic):
            lines += _event_section(entry)
    return "\n".join(lines)


def _calendar() -> list[str]:
    heading = ["## Deprecations", ""]
    rows = [f"| `{name}` | {each.since} | {each.sunset} | `{each.replaced_by}` |" for name, each in deprecations()]
    if not rows:
        return [*heading, "No event is deprecated.", ""]
    return [
        *heading,
        "A deprecated event is emitted until its sunset, and stays on its topic. Read its replacement before that.",
        "",
        "| Event | Deprecated since | Sunset | Replaced by |",
        "|---|---|---|---|",
        *rows,
        "",
    ]


def _topic_row(topic: Topic) -> str:
    kept = "the latest of each key" if topic.compacted else kept_for(topic)
    readers = ", ".join(topic.readers) or "—"
    return (
        f"| [`{topic.name}`](#{topic.name.replace('.', '')}) | {topic.owner} | {topic.description} "
        f"| `{topic.key}` | {topic.partitions} | {kept} | {topic.access} | {readers} |"
    )


def _event_section(entry: EventEntry) -> list[str]:
    mark = "" if entry.emitted else f" · *{status_of(entry)}*"
    if entry.deprecation:
        mark += f" · *deprecated since {entry.deprecation.since}, emitted until {entry.deprecation.sunset}*"
    lines = [f"### {entry.name}", "", f"`{entry.type}`{mark}", "", entry.meaning, "", entry.when, ""]
    if entry.tombstone:
        return [*lines, "The record has no value; its key is the `subject_ref`.", ""]
    lines += ["| Field | Type | Required | Meaning | Example |", "|---|---|---|---|---|"]
    for field in entry.fields:
        required = "yes" if field.required else "no"
        example = field.example.replace("|", "\\|")
        lines.append(f"| `{field.name}` | {field.type} | {required} | {field.meaning} | `{example}` |")
    return [*lines, "", "```json", entry.example, "```", ""]


def status_of(entry: EventEntry) -> str:
    """What is said of an event that no service of Muster publishes."""
    if entry.replaced_by is not None:
        return f"never emitted: read {entry.replaced_by} instead"
    return "reported by systems outside Muster" if entry.reported else "not emitted yet"


def kept_for(topic: Topic) -> str:
    """How long a topic that is not compacted keeps its records."""
    return "forever" if topic.retention_ms < 0 else f"{topic.retention_ms // 86_400_000} days"


def _one_line(text: str) -> str:
    return " ".join(text.split())
