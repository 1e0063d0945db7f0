"""The parts of a JSON Schema as alternatives, whatever keywords say so."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """A part of a schema as its alternatives, in their order; texts and their listed values are one alternative.

    `values` are the texts that are listed, `is_open` says whether others may come.
    """

    alternatives: list[Schema]
    nullable: bool
    values: list[Any]
    is_open: bool
    shared: Schema

    @property
    def kinds(self) -> list[str]:
        """The type of each alternative."""
        return [kind_of(alternative) for alternative in self.alternatives] + (["null"] if self.nullable else [])


def choice_of(schema: Schema, definitions: dict[str, Schema]) -> Choice:
    """A part with its references resolved and its unions flattened."""
    schema = resolved(schema, definitions)
    union = schema.get("anyOf") or schema.get("oneOf")
    if union is None:
        parts, shared = [schema], {}
    else:
        parts = [resolved(part, definitions) for part in _flat(union, definitions)]
        shared = {key: value for key, value in schema.items() if key not in {"anyOf", "oneOf"}}
    nullable = union is not None and any(part.get("type") == "null" for part in parts)
    texts = [part for part in parts if kind_of(part) == "string"]
    values = [value for part in parts for value in part.get("enum", [part["const"]] if "const" in part else [])]
    is_open = any("enum" not in part and "const" not in part for part in texts)
    alternatives: list[Schema] = []
    for part in parts:
        if nullable and part.get("type") == "null":
            continue
        if kind_of(part) == "string" and texts and part is not texts[0]:
            continue  # merged into the first one
        alternatives.append({key: v for text in texts for key, v in text.items()} if part in texts else part)
    return Choice(alternatives, nullable, values, is_open, shared)


def _flat(union: list[Schema], definitions: dict[str, Schema]) -> Iterator[Schema]:
    """The members of a union, and of the unions within it."""
    for part in union:
        whole = resolved(part, definitions)
        if "anyOf" in whole:
            yield from _flat(whole["anyOf"], definitions)
        else:
            yield part


def resolved(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """A part with its reference resolved; what stands beside the reference comes first."""
    if "$ref" not in schema:
        return schema
    own = {key: value for key, value in schema.items() if key != "$ref"}
    return {**definitions[schema["$ref"].rsplit("/", 1)[1]], **own}


def kind_of(schema: Schema) -> str:
    """The type of a part, in a word."""
    if "oneOf" in schema:
        return "kinds"  # of object, told apart by a field: a union of its own, also within another one
    kind = schema.get("type")
    if kind is None and (values := schema.get("enum", [schema["const"]] if "const" in schema else [])):
        return "string" if all(isinstance(value, str) for value in values) else "value"
    return "any" if kind is None else words_of(kind)


def words_of(value: Any) -> str:
    """A keyword's value, as a message shows it."""
    if value is None:
        return "none"
    if isinstance(value, list):
        return " or ".join(str(each) for each in value)
    return str(value)
