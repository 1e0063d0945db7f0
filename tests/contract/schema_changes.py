"""Changes to an event, each with its verdict: what the compatibility gate refuses, and what it considers harmless."""

import json
from collections.abc import Callable
from copy import deepcopy
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field

from muster_contracts import Event, topics
from muster_contracts.generate.schemas import schema_of
from muster_contracts.releases import Release
from muster_contracts.types import Instant, Money, Open

TYPE = "muster.billing.Sampled.v1"
TOPIC = "muster.billing.term"


class Color(StrEnum):
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
    color: Open[Color] = Field(description="A color.")
    note: str | None = Field(default=None, description="A note.")


class Node(BaseModel):
    """A model within itself."""

    name: str = Field(description="A name.")
    below: "list[Node]" = Field(default_factory=list, description="What is below.")


class Cat(BaseModel):
    """One of two."""

    kind: Literal["cat"] = "cat"
    lives: int = Field(description="How many.", ge=1)


class Dog(BaseModel):
    """The other of two."""

    kind: Literal["dog"] = "dog"
    name: str = Field(description="A name.")


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
    color: Open[Color] = Field(description="A color.")
    size: Size = Field(description="A size.")
    quota: int | None = Field(default=None, description="A quota.")
    level: int = Field(default=1, description="A level.")
    tags: list[str] = Field(description="Tags.")
    items: list[Item] = Field(description="Items.")
    counts: dict[str, int] = Field(description="Counts by name.")
    amounts: dict[str, Money] = Field(description="Amounts by name.")
    pair: tuple[int, str] = Field(description="A number and a text.")
    either: Annotated[int, Field(ge=0, le=9)] | str = Field(description="A number or a text.")
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] = Field(description="A pet.")
    guest: Annotated[Cat | Dog, Field(discriminator="kind")] | None = Field(default=None, description="A guest.")
    tree: Node = Field(description="A tree.")


def release() -> Release:
    """A release with the sample alone."""
    settings = topics()[TOPIC].model_dump(mode="json")
    return deepcopy(
        {"version": "1.0.0", "topics": {TOPIC: settings}, "schemas": {TYPE: schema_of(Sampled)}, "records": []}
    )


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


def _longer(name: str) -> Change:
    """Give a pair a third part."""
    return lambda changed: _property(changed, name)["prefixItems"].append({"type": "string"})


def _swap(name: str) -> Change:
    """Turn a union round."""
    return lambda changed: _property(changed, name)["anyOf"].reverse()


def _alternative(name: str, schema: Any) -> Change:
    """Add to a union."""
    return lambda changed: _property(changed, name)["anyOf"].append(schema)


def _kind_added(changed: Release) -> None:
    """A third kind of pet."""
    pet = _property(changed, "pet")
    pet["oneOf"].append({"$ref": "#/$defs/Money"})


def _property(changed: Release, name: str) -> Any:
    return changed["schemas"][TYPE]["properties"][name]


TEXT = {"type": "string", "maxLength": 40}
DICTIONARY = {"type": "object", "additionalProperties": {"type": "integer"}}
PAIR = {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2}
NULLABLE: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "null"}]}
KINDS = {
    "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
    "discriminator": {"propertyName": "kind", "mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"}},
}
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
    ("value removed", drop("$defs/Color/enum/1"), "color", "value removed: blue"),
    ("value renamed", put("$defs/Color/enum", ["red", "azure"]), "color", "value removed: blue"),
    ("list closed", put("properties/color", {"$ref": "#/$defs/Color"}), "color", "list of values is closed"),
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
    ("list items closed", put("$defs/Item/properties/color", {"$ref": "#/$defs/Color"}), "items[].color", "closed"),
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
    ("nested object closed", put("$defs/Money/additionalProperties", False), "price", "additionalProperties changed"),
    ("dictionary's values retyped", put("properties/counts/additionalProperties/type", "string"), "counts{}", "type"),
    ("dictionary's values bounded", put("properties/counts/additionalProperties/minimum", 0), "counts{}", "minimum"),
    ("dictionary becomes an object", put("properties/counts/additionalProperties", True), "counts", "additional"),
    ("dictionary's keys bounded", put("properties/counts/propertyNames", {"maxLength": 3}), "counts", "propertyNames"),
    ("dictionary bounded", put("properties/counts/maxProperties", 3), "counts", "maxProperties changed"),
    (
        "field of a dictionary's values required",
        all_of(put("$defs/Money/properties/new", {"type": "string"}), require("new", of="Money")),
        "price.new",
        "added as required",
    ),
    ("pair's first retyped", put("properties/pair/prefixItems/0/type", "string"), "pair[0]", "type changed"),
    ("pair's second bounded", put("properties/pair/prefixItems/1/maxLength", 5), "pair[1]", "maxLength changed"),
    ("pair becomes three", _longer("pair"), "pair[2]", "the items are none, and typed now"),
    ("pair's lengths", put("properties/pair/maxItems", 3), "pair", "maxItems changed from 2 to 3"),
    ("alternatives in another order", _swap("either"), "either", "alternatives changed their order"),
    ("bound within a union", put("properties/either/anyOf/0/maximum", 8), "either", "maximum changed from 9 to 8"),
    (
        "bound within a union gone",
        drop("properties/either/anyOf/0/minimum"),
        "either",
        "minimum changed from 0 to none",
    ),
    ("alternative added", _alternative("either", {"type": "boolean"}), "either", "type changed"),
    ("alternative removed", drop("properties/either/anyOf/1"), "either", "type changed"),
    ("kind of object removed", drop("properties/pet/oneOf/1"), "pet", "type changed"),
    ("kind of object added", _kind_added, "pet", "type changed"),
    ("discriminator renamed", put("properties/pet/discriminator/propertyName", "sort"), "pet", "discriminator changed"),
    ("bound within a kind of object", put("$defs/Cat/properties/lives/minimum", 2), "pet.lives", "minimum changed"),
    ("field of a nested self removed", drop("$defs/Node/properties/name"), "tree.name", "removed or renamed"),
    ("list without a type", put("properties/tags/items", {}), "tags[]", "the items are typed, and none now"),
    ("unknown keyword", put("properties/label/if", {"const": "a"}), "label", "keyword if is not known to the gate"),
    (
        "unknown keyword of a new field",
        put("properties/new", OPTIONAL | {"contains": {}}),
        "new",
        "keyword contains is not known",
    ),
    (
        "unknown keyword of a new pair's part",
        put("properties/new", {"type": "array", "prefixItems": [{"type": "string", "if": {}}], "default": ["a"]}),
        "new[0]",
        "keyword if is not known",
    ),
    (
        "unknown keyword of a new dictionary's value",
        put("properties/new", {"type": "object", "additionalProperties": {"not": {}}, "default": {}}),
        "new{}",
        "keyword not is not known",
    ),
    (
        "unknown keyword of a new kind of object",
        put(
            "properties/new", {"anyOf": [{"oneOf": [{"type": "object", "if": {}}]}, {"type": "null"}], "default": None}
        ),
        "new",
        "keyword if is not known",
    ),
    ("kind of an optional object removed", drop("properties/guest/anyOf/0/oneOf/1"), "guest", "type changed"),
    (
        "discriminator of an optional object renamed",
        put("properties/guest/anyOf/0/discriminator/propertyName", "sort"),
        "guest",
        "discriminator changed",
    ),
    (
        "bound within a kind of optional object",
        put("$defs/Dog/properties/name/maxLength", 3),
        "guest.name",
        "maxLength",
    ),
    (
        "optional object of kinds becomes any",
        put("properties/guest/anyOf", [{}, {"type": "null"}]),
        "guest",
        "type changed from kinds",
    ),
    ("multiple of", put("properties/count/multipleOf", 2), "count", "multipleOf changed from none to 2"),
    ("default becomes true", put("properties/level/default", True), "level", "default changed from 1 to True"),
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
    ("value added to an open list", put("$defs/Color/enum", ["red", "blue", "green"])),
    ("values told in another order", put("$defs/Color/enum", ["blue", "red"])),
    ("text becomes an open list", put("properties/label", {"anyOf": [{"$ref": "#/$defs/Color"}, TEXT]})),
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
    ("field deprecated", put("properties/label/deprecated", True)),
    ("nested field deprecated", put("$defs/Money/properties/currency/deprecated", True)),
    ("note of our own", put("properties/label/x-unit", "minutes")),
    ("note for people", put("properties/label/$comment", "It was once longer.")),
    ("description of a dictionary's value", put("properties/counts/additionalProperties/description", "A count.")),
    ("description of a pair's part", put("properties/pair/prefixItems/0/description", "A number.")),
    ("description within a nested self", put("$defs/Node/properties/name/description", "Better words.")),
    ("optional field added to a nested self", put("$defs/Node/properties/new", OPTIONAL)),
    ("optional field added to a kind of object", put("$defs/Cat/properties/new", OPTIONAL)),
    ("optional nested self added", put("properties/new", {"$ref": "#/$defs/Node", "default": None})),
    ("optional dictionary added", put("properties/new", DICTIONARY | {"default": {}})),
    (
        "optional object of kinds added",
        put("properties/new", {"anyOf": [KINDS, {"type": "null"}], "default": None}),
    ),
    ("optional field added to a kind of optional object", put("$defs/Dog/properties/new", OPTIONAL)),
    ("optional pair added", put("properties/new", PAIR | {"default": [1, "a"]})),
]


def _inline(changed: Release) -> None:
    schema = changed["schemas"][TYPE]
    schema["properties"]["price"] = deepcopy(schema["$defs"]["Money"])


def _rename_definition(changed: Release) -> None:
    text = json.dumps(changed["schemas"][TYPE]).replace('"Money"', '"Amount"').replace("/Money", "/Amount")
    changed["schemas"][TYPE] = json.loads(text)


def _reverse(changed: Release) -> None:
    schema = changed["schemas"][TYPE]
    schema["properties"] = dict(reversed(schema["properties"].items()))
