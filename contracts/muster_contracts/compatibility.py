"""The gate that keeps today's models readable beside every release, both ways.

Topics are kept for ever: new readers meet old records, and old readers new ones. So within a major version only
an optional field with a default may come, and a value of an open list. This rule is stricter than what libraries
that compare JSON Schemas answer (whether one schema accepts all that another does): a changed default, a
renamed field or a moved topic breaks readers and leaves the sets of accepted values alone. What is not known here
to be harmless is refused.

`python -m muster_contracts.compatibility` checks; with --release it keeps today's models as a release.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muster_contracts import __version__
from muster_contracts.codec import Decoded, decode
from muster_contracts.envelope import MalformedRecord
from muster_contracts.event import event_types
from muster_contracts.generate.schemas import Schema, as_json, record_of, schema_of
from muster_contracts.testing import golden_records
from muster_contracts.topics import topics

# What says something to people alone.
_DOCUMENTATION = {"title", "description", "examples", "$schema", "$id", "$defs", "x-emitted"}
_GUARDED_OF_TOPICS = ("owner", "key", "partitions", "cleanup_policy", "retention_ms", "access")

Release = dict[str, Any]
"""`version`, `topics` by name, `schemas` by type, and the golden `records`."""


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


def current() -> Release:
    """Today's models, in the form of a release."""
    return {
        "version": __version__,
        "topics": {name: topic.model_dump(mode="json") for name, topic in topics().items()},
        "schemas": {name: schema_of(event_class) for name, event_class in event_types().items()},
        "records": [record_of(golden) for golden in golden_records()],
    }


def refusals(released: Release, today: Release) -> list[Refusal]:
    """Every change since a release that breaks a reader; none when both can live with each other."""
    return [
        *_topic_refusals(released["topics"], today["topics"]),
        *_event_refusals(released["schemas"], today["schemas"]),
    ]


def unreadable(released: Release) -> list[Refusal]:
    """The golden records of a release that today's models no longer read, or read as something else."""
    found = []
    for record in released["records"]:
        headers = [(name, value.encode()) for name, value in record["headers"]]
        value = None if record["value"] is None else record["value"].encode()
        event_type = dict(record["headers"])["ce_type"]
        try:
            decoded = decode(headers, value, record["key"].encode())
        except MalformedRecord as error:
            found.append(Refusal(event_type, "", f"a released record is refused: {error}", _new_major(event_type)))
            continue
        if not isinstance(decoded, Decoded) or decoded.event.record_key != record["key"]:
            found.append(Refusal(event_type, "", "a released record is read as another", _new_major(event_type)))
    return found


def _topic_refusals(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Refusal]:
    for name, topic in old.items():
        if name not in new:
            yield Refusal(name, "", "the topic is gone or renamed", "keep it: its records are kept for ever")
            continue
        for setting in _GUARDED_OF_TOPICS:
            if topic[setting] != new[name][setting]:
                rule = f"{setting} changed from {topic[setting]} to {new[name][setting]}"
                yield Refusal(name, setting, rule, "make a new topic, and publish to both until readers have moved")


def _event_refusals(old: dict[str, Schema], new: dict[str, Schema]) -> Iterator[Refusal]:
    for event_type, schema in old.items():
        if event_type not in new:
            instead = "keep the class: its records are kept for ever; a new name is a new event beside it"
            yield Refusal(event_type, "", "the event is gone or renamed", instead)
            continue
        comparison = _Comparison(event_type, schema.get("$defs", {}), new[event_type].get("$defs", {}))
        yield from comparison.compare(schema, new[event_type], "")


@dataclass(frozen=True)
class _Comparison:
    """Compares one event's schema with its released one, part by part."""

    event_type: str
    old_definitions: dict[str, Schema]
    new_definitions: dict[str, Schema]

    def compare(self, old: Schema, new: Schema, path: str) -> Iterator[Refusal]:
        """The refusals of one part, and of all within it."""
        old, new = _normal(old, self.old_definitions), _normal(new, self.new_definitions)
        if old["type"] != new["type"]:
            yield self._refuse(path, f"type changed from {_words(old['type'])} to {_words(new['type'])}")
            return
        yield from self._compare_values(old, new, path)
        yield from self._compare_properties(old, new, path)
        if "items" in old and "items" in new:
            yield from self.compare(old["items"], new["items"], f"{path}[]")
        compared = {"type", "enum", "open", "properties", "required", "items"}
        for key in sorted((old.keys() | new.keys()) - compared - _DOCUMENTATION):
            if old.get(key) != new.get(key) or (key in old) != (key in new):
                rule = f"{key.removeprefix('x-')} changed from {_words(old.get(key))} to {_words(new.get(key))}"
                yield self._refuse(path, rule)

    def _compare_values(self, old: Schema, new: Schema, path: str) -> Iterator[Refusal]:
        """Closed and open lists of values; plain text is an open list that names none."""
        if old["open"] and not new["open"]:
            yield self._refuse(path, "the list of values is closed", "leave it open: Open[...]")
            return
        if new["open"] and not old["open"]:
            yield self._refuse(path, "the list of values is opened, which readers do not tolerate yet")
            return
        removed = sorted(set(old["enum"]) - set(new["enum"]))
        added = sorted(set(new["enum"]) - set(old["enum"]))
        if removed:
            yield self._refuse(path, f"value removed: {', '.join(removed)}", "keep the value, even if it is not used")
        if added and not new["open"]:
            yield self._refuse(path, f"value added to a closed list: {', '.join(added)}")

    def _compare_properties(self, old: Schema, new: Schema, path: str) -> Iterator[Refusal]:
        before, after = old.get("properties", {}), new.get("properties", {})
        required_before, required_after = set(old.get("required", ())), set(new.get("required", ()))
        for name, schema in before.items():
            place = f"{path}.{name}".lstrip(".")
            if name not in after:
                yield self._refuse(place, "the field is removed or renamed", f"keep it; else {self._major}")
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

    @property
    def _major(self) -> str:
        return _new_major(self.event_type)

    def _refuse(self, path: str, rule: str, instead: str | None = None) -> Refusal:
        return Refusal(self.event_type, path, rule, instead or self._major)


def _new_major(event_type: str) -> str:
    family, major = event_type.rsplit(".v", 1)
    return f"add {family}.v{int(major) + 1} beside it, and leave v{major} as it was"


def _normal(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """A part with its references resolved, its alternatives sorted, and its list of values told apart.

    `type` lists the types of all alternatives, `enum` the values named, `open` whether others may come.
    """
    if "$ref" in schema:
        own = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**definitions[schema["$ref"].rsplit("/", 1)[1]], **own}
    if "anyOf" not in schema:
        is_open = schema.get("type") == "string" and "enum" not in schema
        return {**schema, "type": [str(schema.get("type"))], "enum": schema.get("enum", []), "open": is_open}
    alternatives = [_normal(part, definitions) for part in schema["anyOf"]]
    if sum(alternative["type"] == ["object"] for alternative in alternatives) > 1:
        raise ValueError("a choice between objects cannot be compared: make them events of their own")
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    merged: Schema = {}
    for alternative in alternatives:
        merged |= {key: value for key, value in alternative.items() if key not in _DOCUMENTATION}
    return {
        **merged,
        **rest,
        "type": sorted({kind for alternative in alternatives for kind in alternative["type"]}),
        "enum": [value for alternative in alternatives for value in alternative["enum"]],
        "open": any(alternative["open"] for alternative in alternatives),
    }


def _words(value: Any) -> str:
    if value is None:
        return "none"
    return " or ".join(value) if isinstance(value, list) else str(value)


def main() -> int:
    """The command; its status is 1 when a release and today's models cannot live with each other."""
    parser = argparse.ArgumentParser(prog="python -m muster_contracts.compatibility")
    parser.add_argument("--release", action="store_true", help="keep today's models as the release of their version")
    parser.add_argument("--directory", type=Path, default=Path(__file__).parents[1] / "released")
    options = parser.parse_args()
    today = current()
    releases = [json.loads(path.read_text("utf-8")) for path in sorted(options.directory.glob("*.json"))]
    found = [(release, refusal) for release in releases for refusal in refusals(release, today) + unreadable(release)]
    for release, refusal in found:
        sys.stderr.write(f"since {release['version']}: {refusal}\n")
    if found:
        return 1
    if options.release:
        return _keep(today, options.directory)
    sys.stdout.write(f"{len(today['schemas'])} events are compatible with {len(releases)} releases, both ways\n")
    return 0


def _keep(release: Release, directory: Path) -> int:
    path = directory / f"{release['version']}.json"
    if path.exists():
        sys.stderr.write(f"{path.name} is released already: raise __version__ in muster_contracts/__init__.py\n")
        return 1
    directory.mkdir(parents=True, exist_ok=True)
    path.write_text(as_json(release), encoding="utf-8")
    sys.stdout.write(f"kept {path.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
