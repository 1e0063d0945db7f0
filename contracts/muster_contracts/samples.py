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

# How deep a model within itself is followed.
_DEPTH = 6

_SIMPLEST = {"string": "a", "integer": 1, "number": 1, "boolean": True, "null": None, "array": [], "object": {}}


def samples_of(event_class: type[Event]) -> list[str]:
    """Values of an event as JSON, one part at a time at an edge; those that the model takes, as it writes them."""
    if issubclass(event_class, Erasure):
        return []
    schema = event_class.model_json_schema(mode="serialization")
    typical = json.loads(build(event_class).model_dump_json())
    read = (read_back(event_class, json.dumps(value)) for value in _within(typical, schema, schema, 0))
    return sorted({value for value in read if value is not None})


def read_back(event_class: type[Event], value: str) -> str | None:
    """A value as the model writes it after it has read it; None where it refuses it."""
    try:
        return event_class.model_validate_json(value).model_dump_json()
    except ValidationError:
        return None


def _variants(value: Any, part: Any, schema: Any, depth: int) -> Iterator[Any]:
    """A part at its own edges, and with what is within it at an edge."""
    yield from _edges(part, schema)
    yield from _within(value, part, schema, depth)


def _within(value: Any, part: Any, schema: Any, depth: int) -> Iterator[Any]:
    """An object or a list with one thing at a time at an edge: a field, a dictionary's value, an item.

    Where `value` is of another alternative than the one that is tried, that one's example is taken in its place.
    """
    if depth > _DEPTH:
        return
    for option in _options(part, schema):
        if option.get("type") == "object":
            whole = value if _is_of(value, option, schema) else _example(option, schema)
            for name, inner in _fields(whole, option).items():
                for changed in _variants(whole.get(name), inner, schema, depth + 1):
                    yield {**whole, name: changed}
        elif option.get("type") == "array":
            items = value if isinstance(value, list) and value else _example(option, schema)
            for number, inner in enumerate(option.get("prefixItems") or [option.get("items")][: len(items)]):
                for changed in _variants(items[number], inner or {}, schema, depth + 1):
                    yield [*items[:number], changed, *items[number + 1 :]]


def _fields(value: Any, option: Any) -> dict[str, Any]:
    """The schema of each field, and of a dictionary's first value."""
    fields = dict(option.get("properties", {}))
    further = option.get("additionalProperties")
    if isinstance(further, dict):
        fields |= dict.fromkeys(list(value.keys() - fields.keys())[:1], further)
    return fields


def _edges(part: Any, schema: Any) -> Iterator[Any]:
    """A part's own edges: of its number, text or list, and each listed value and example."""
    yield from _resolved(part, schema).get("examples", ())
    for option in _options(part, schema):
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
            case "object" if not option.get("properties"):
                yield {}


def _options(part: Any, schema: Any) -> Iterator[Any]:
    """A part itself, or each of its alternatives, and of the alternatives within them."""
    part = _resolved(part, schema)
    alternatives = part.get("anyOf") or part.get("oneOf")
    if alternatives is None:
        yield part
        return
    for alternative in alternatives:
        yield from _options(alternative, schema)


def _is_of(value: Any, option: Any, schema: Any) -> bool:
    """Whether a value is an object of this alternative, with something in it."""
    if not isinstance(value, dict) or not value or not value.keys() >= set(option.get("required", ())):
        return False
    parts = {name: _resolved(part, schema) for name, part in option.get("properties", {}).items()}
    return all(value.get(name) == part["const"] for name, part in parts.items() if "const" in part)


def _example(part: Any, schema: Any, depth: int = 0) -> Any:
    """A value of a part that has something in it: its first example, else the simplest."""
    option = next(_options(part, schema))
    for known in (_resolved(part, schema), option):
        if "const" in known:
            return known["const"]
        if filled := [each for each in known.get("examples", known.get("enum", ())) if each not in ({}, [], None)]:
            return filled[0]
    if depth > _DEPTH:
        return _SIMPLEST.get(option.get("type"))
    if "prefixItems" in option:
        return [_example(item, schema, depth + 1) for item in option["prefixItems"]]
    if isinstance(option.get("items"), dict):
        return [_example(option["items"], schema, depth + 1)]
    if isinstance(option.get("additionalProperties"), dict):
        return {"a": _example(option["additionalProperties"], schema, depth + 1)}
    if "properties" in option:
        return {name: _example(inner, schema, depth + 1) for name, inner in option["properties"].items()}
    return _SIMPLEST.get(option.get("type"))


def _resolved(part: Any, schema: Any) -> Any:
    if "$ref" not in part:
        return part
    return {**schema["$defs"][part["$ref"].rsplit("/", 1)[1]], **{k: v for k, v in part.items() if k != "$ref"}}
