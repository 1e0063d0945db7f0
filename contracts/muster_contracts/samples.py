"""Values of each event at the edges of its schema: what a release's models took, every later one must take as it is.

A schema does not show a validator that narrows, or one that changes a value; what the models make of values does.
"""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from muster_contracts.event import Erasure, Event
from muster_contracts.testing import build

# The lengths of texts and lists that are tried where a schema gives no bound.
_LENGTHS = (0, 1, 40)
_NUMBERS = (0, 1, 2, 3, 1_000_003)
_TEXT = "aB3-é "


def samples_of(event_class: type[Event]) -> list[str]:
    """Values of an event as JSON, one field at a time at an edge; those that the model takes, as it writes them."""
    if issubclass(event_class, Erasure):
        return []
    schema = event_class.model_json_schema(mode="serialization")
    typical = json.loads(build(event_class).model_dump_json())
    found: dict[str, None] = {}
    for path, part in _parts(schema, schema, ()):
        for value in _edges(part, schema):
            changed = _with(typical, path, value)
            read = None if changed is None else read_back(event_class, json.dumps(changed))
            if read is not None:
                found[read] = None
    return sorted(found)


def read_back(event_class: type[Event], value: str) -> str | None:
    """A value as the model writes it after it has read it; None where it refuses it."""
    try:
        return event_class.model_validate_json(value).model_dump_json()
    except ValidationError:
        return None


def _parts(part: Any, schema: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Each field of an event, and of the objects and the first items within it."""
    part = _resolved(part, schema)
    if len(path) > 6:
        return  # a model within itself
    if path:
        yield path, part
    for option in [part, *part.get("anyOf", ())]:
        option = _resolved(option, schema)
        for name, inner in option.get("properties", {}).items():
            yield from _parts(inner, schema, (*path, name))
        if isinstance(option.get("items"), dict):
            yield from _parts(option["items"], schema, (*path, 0))


def _edges(part: Any, schema: Any) -> Iterator[Any]:
    for option in [part, *part.get("anyOf", ())]:
        option = _resolved(option, schema)
        yield from option.get("enum", ())
        yield from option.get("examples", ())
        match option.get("type"):
            case "integer" | "number":
                yield from _NUMBERS
                yield from (option[bound] for bound in ("minimum", "maximum") if bound in option)
                yield from (option[bound] + 1 for bound in ("minimum", "exclusiveMinimum") if bound in option)
            case "string":
                lengths = {option.get("minLength", 0), option.get("maxLength", 40), *_LENGTHS}
                yield from ((_TEXT * 1_000)[:length] for length in sorted(lengths))
            case "boolean":
                yield from (True, False)
            case "null":
                yield None
            case "array":
                yield []


def _with(value: Any, path: tuple[str | int, ...], edge: Any) -> Any:
    """A copy of a value with one part replaced; None where it has no such part."""
    changed = json.loads(json.dumps(value))
    inner = changed
    for step in path[:-1]:
        try:
            inner = inner[step]
        except (IndexError, KeyError, TypeError):
            return None
    try:
        inner[path[-1]] = edge
    except (IndexError, TypeError):
        return None
    return changed


def _resolved(part: Any, schema: Any) -> Any:
    if "$ref" not in part:
        return part
    return {**schema["$defs"][part["$ref"].rsplit("/", 1)[1]], **{k: v for k, v in part.items() if k != "$ref"}}
