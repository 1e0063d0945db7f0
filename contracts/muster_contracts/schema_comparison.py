"""Compares two JSON Schemas of one event: every change that would break a reader of either.

Within a major version only an optional field with a default may come, and a value of an open list. This is stricter
than what libraries that compare JSON Schemas answer (whether one schema accepts all that another does): a changed
default or a moved topic breaks readers and leaves the sets of accepted values alone. What is not known to be harmless
is refused.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from muster_contracts.schema_parts import Choice, Schema, choice_of, kind_of, words_of

# What speaks to people alone; so does whatever begins with x-, but for these.
_DOCUMENTATION = {
    "title",
    "description",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$comment",
    "$schema",
    "$id",
    "$defs",
}
_MEANT = {"x-topic", "x-key"}

# Compared part by part.
_PARTS = {
    "type",
    "enum",
    "const",
    "anyOf",
    "oneOf",
    "properties",
    "required",
    "items",
    "prefixItems",
    "additionalProperties",
}

# Compared as a whole: any change may break a reader.
_WHOLE = {
    "default",
    "discriminator",
    "format",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "propertyNames",
    "contentEncoding",
    "contentMediaType",
    *_MEANT,
}


@dataclass(frozen=True)
class Refusal:
    """A change that breaks somebody: of what, where in it, which rule, and what to do instead."""

    subject: str
    field: str
    rule: str
    instead: str

    def __str__(self) -> str:
        place = f"{self.subject}, {self.field}" if self.field else self.subject
        return f"{place}: {self.rule}. Instead: {self.instead}."


def new_major(event_type: str) -> str:
    """What to do where an event cannot change."""
    family, major = event_type.rsplit(".v", 1)
    return f"add {family}.v{int(major) + 1} beside it, and leave v{major} as it was"


def compare(event_type: str, old: Schema, new: Schema) -> list[Refusal]:
    """Every change between an event's released schema and today's that breaks a reader of either."""
    comparison = _Comparison(event_type, old.get("$defs", {}), new.get("$defs", {}))
    return list(comparison.compare(old, new, ""))


@dataclass(frozen=True)
class _Comparison:
    event_type: str
    old_definitions: dict[str, Schema]
    new_definitions: dict[str, Schema]
    _met: set[tuple[str, str]] = field(default_factory=set)

    def compare(self, old: Schema, new: Schema, path: str) -> Iterator[Refusal]:
        """The refusals of one part, and of all within it."""
        if "$ref" in old and "$ref" in new:
            parts = json.dumps(old, sort_keys=True), json.dumps(new, sort_keys=True)
            if parts in self._met:
                return  # a model within itself, or one that is compared already
            self._met.add(parts)
        before, after = choice_of(old, self.old_definitions), choice_of(new, self.new_definitions)
        yield from self._compare_keywords(before.shared, after.shared, path)
        if sorted(before.kinds) != sorted(after.kinds):
            rule = f"type changed from {words_of(sorted(before.kinds))} to {words_of(sorted(after.kinds))}"
            yield self._refuse(path, rule)
            return
        if before.kinds != after.kinds:
            yield self._refuse(path, "the alternatives changed their order: a reader takes the first that fits")
            return
        yield from self._compare_values(before, after, path)
        for one, other in zip(before.alternatives, after.alternatives, strict=True):
            yield from self._compare_alternative(one, other, path)

    def _compare_alternative(self, old: Schema, new: Schema, path: str) -> Iterator[Refusal]:
        if kind_of(old) == "kinds":
            yield from self.compare(old, new, path)
            return
        yield from self._compare_keywords(old, new, path)
        if kind_of(old) == "object":
            yield from self._compare_properties(old, new, path)
            yield from self._compare_further(old, new, path)
        for place, one, other in self._items(old, new, path):
            if (one is None) != (other is None):
                yield self._refuse(
                    place, f"the items are {words_of(one and 'typed')}, and {words_of(other and 'typed')} now"
                )
            elif isinstance(one, dict) and isinstance(other, dict):
                yield from self.compare(one, other, place)

    def _items(self, old: Schema, new: Schema, path: str) -> Iterator[tuple[str, Any, Any]]:
        if "items" in old or "items" in new:
            yield f"{path}[]", _typed(old.get("items")), _typed(new.get("items"))
        before, after = old.get("prefixItems", []), new.get("prefixItems", [])
        for number in range(max(len(before), len(after))):
            yield (
                f"{path}[{number}]",
                before[number] if number < len(before) else None,
                after[number] if number < len(after) else None,
            )

    def _compare_keywords(self, old: Schema, new: Schema, path: str) -> Iterator[Refusal]:
        for key in sorted(old.keys() | new.keys()):
            if key in _DOCUMENTATION or key in _PARTS or (key.startswith("x-") and key not in _MEANT):
                continue
            if key not in _WHOLE:
                if key in new and old.get(key) != new[key]:
                    yield self._refuse(path, f"the keyword {key} is not known to the gate", "name a note x-…")
            elif (key in old) != (key in new) or not _same(old.get(key), new.get(key)):
                rule = f"{key.removeprefix('x-')} changed from {words_of(old.get(key))} to {words_of(new.get(key))}"
                yield self._refuse(path, rule)

    def _compare_values(self, old: Choice, new: Choice, path: str) -> Iterator[Refusal]:
        """Closed and open lists of values; plain text is an open list that names none."""
        if old.is_open and not new.is_open:
            yield self._refuse(path, "the list of values is closed", "leave it open: Open[...]")
            return
        if new.is_open and not old.is_open:
            yield self._refuse(path, "the list of values is opened, which readers do not tolerate yet")
            return
        removed = [value for value in old.values if value not in new.values]
        added = [value for value in new.values if value not in old.values]
        if removed:
            yield self._refuse(path, f"value removed: {_listed(removed)}", "keep the value, even if it is not used")
        if added and not new.is_open:
            yield self._refuse(path, f"value added to a closed list: {_listed(added)}")

    def _compare_properties(self, old: Schema, new: Schema, path: str) -> Iterator[Refusal]:
        before, after = old.get("properties", {}), new.get("properties", {})
        required_before, required_after = set(old.get("required", ())), set(new.get("required", ()))
        for name, schema in before.items():
            place = f"{path}.{name}".lstrip(".")
            if name not in after:
                yield self._refuse(
                    place, "the field is removed or renamed", f"keep it; else {new_major(self.event_type)}"
                )
                continue
            if name in required_before - required_after:
                yield self._refuse(place, "the field became optional", "keep sending it")
            if name in required_after - required_before:
                yield self._refuse(place, "the field became required", "keep its default: old records lack it")
            yield from self.compare(schema, after[name], place)
        for name in sorted(after.keys() - before.keys()):
            place = f"{path}.{name}".lstrip(".")
            if name in required_after:
                yield self._refuse(place, "the field is added as required", "give it a default")
            elif "default" not in after[name]:
                yield self._refuse(place, "the field is added without a default", "give it a default")
            else:
                yield from self._look_for_unknown(after[name], place, set())

    def _compare_further(self, old: Schema, new: Schema, path: str) -> Iterator[Refusal]:
        """Further properties: open, closed, or of one schema (a dictionary)."""
        before, after = old.get("additionalProperties", True), new.get("additionalProperties", True)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from self.compare(before, after, f"{path}{{}}")
        elif before != after:
            yield self._refuse(path, f"additionalProperties changed from {words_of(before)} to {words_of(after)}")

    def _look_for_unknown(self, new: Schema, path: str, met: set[str]) -> Iterator[Refusal]:
        """A part that is new has nothing to be compared with, but must be of a kind that can be from now on."""
        if "$ref" in new:
            if new["$ref"] in met:
                return
            met.add(new["$ref"])
        choice = choice_of(new, self.new_definitions)
        yield from self._compare_keywords({}, {k: v for k, v in choice.shared.items() if k not in _WHOLE}, path)
        for alternative in choice.alternatives:
            yield from self._compare_keywords({}, {k: v for k, v in alternative.items() if k not in _WHOLE}, path)
            for name, part in alternative.get("properties", {}).items():
                yield from self._look_for_unknown(part, f"{path}.{name}", met)
            for place, part in _parts_without_name(alternative, path):
                yield from self._look_for_unknown(part, place, met)

    def _refuse(self, path: str, rule: str, instead: str | None = None) -> Refusal:
        return Refusal(self.event_type, path, rule, instead or new_major(self.event_type))


def _parts_without_name(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """What a part holds besides its fields: items, a dictionary's values, the kinds of object that it may be."""
    for key, place in (("items", f"{path}[]"), ("additionalProperties", f"{path}{{}}")):
        if isinstance(schema.get(key), dict):
            yield place, schema[key]
    for number, item in enumerate(schema.get("prefixItems", ())):
        yield f"{path}[{number}]", item
    if kind_of(schema) == "kinds":
        yield path, schema


def _typed(items: Any) -> Any:
    """An empty schema says nothing of the items."""
    return items or None


def _same(old: Any, new: Any) -> bool:
    """Equal, and of one type: 1 and true are equal to Python, and 1 and 1.0 in a schema mean the same."""
    return bool(old == new) and isinstance(old, bool) == isinstance(new, bool)


def _listed(values: list[Any]) -> str:
    return ", ".join(str(value) for value in sorted(values, key=str))
