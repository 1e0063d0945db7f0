"""The subscribers' file: TOML with a table for each subscriber, kept under version control."""

import fcntl
import os
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator
from tomlkit.exceptions import ParseError

from muster_contracts import SERVICES, Deprecation, MalformedRecord, event_types, split_type, topics
from muster_operator.access.acls import SANDBOX, Acl, acls_of_subscriber
from muster_operator.failures import BadInput, NotFound
from muster_runtime.plain_rules import plain_rule
from muster_runtime.text import did_you_mean

# Names whose principals belong to Muster or an administrator.
RESERVED = (*SERVICES, SANDBOX, "admin", "broker", "muster", "operator")

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class Subscriber(BaseModel):
    """A program that reads topics, in consumer groups whose names start with its own name and a dot.

    By the day `review`, its owner must confirm these facts again. `reads` are the event types that it understands, each
    with its major version. `produces` are the topics that it owns by contract.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=60)]
    owner: Text
    contact: Text
    purpose: Text
    classification: Literal["public", "restricted"] = "public"
    review: date
    topics: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    produces: tuple[str, ...] = Field(default=())

    @property
    def deprecated(self) -> list[tuple[str, Deprecation]]:
        """The deprecated event types that it reads."""
        found = ((name, event_types()[name].deprecation) for name in self.reads)
        return [(name, deprecation) for name, deprecation in found if deprecation is not None]

    def acls(self, prefix: str, principal: str) -> list[Acl]:
        """The ACLs that it needs."""
        known = topics()
        read, written = ([known[name] for name in names] for names in (self.topics, self.produces))
        return acls_of_subscriber(self.name, read, written, prefix=prefix, principal=principal)

    @field_validator("name")
    @classmethod
    def _is_no_other(cls, name: str) -> str:
        if name in RESERVED:
            raise ValueError(f"{name} is reserved: {', '.join(RESERVED)} belong to Muster")
        return name

    @field_validator("topics", "produces")
    @classmethod
    def _topics_are_described(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        described = [name for name, topic in topics().items() if topic.owner != SANDBOX]
        for name in names:
            if name not in described:
                raise ValueError(f"no contract describes the topic {name}{_nearest(name, described)}")
        return tuple(sorted(set(names)))

    @field_validator("reads")
    @classmethod
    def _types_are_described(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in event_types():
                raise ValueError(_unknown(name))
        return tuple(sorted(set(names)))

    @model_validator(mode="after")
    def _all_agree(self) -> Self:
        if not self.topics and not self.produces:
            raise ValueError("topics: must name at least one, unless produces does")
        for name in self.topics:
            if topics()[name].access == "restricted" and self.classification != "restricted":
                rule = "a restricted topic requires the classification restricted"
                raise ValueError(f"topics: {name}: {rule}")
        for name in self.reads:
            if event_types()[name].topic not in self.topics:
                raise ValueError(f"reads: {name} is on {event_types()[name].topic}, which topics does not name")
        for name in self.produces:
            if topics()[name].producers == "owner" and topics()[name].owner != self.name:
                raise ValueError(f"produces: {name} belongs to {topics()[name].owner}, and nobody else writes to it")
        return self


def checked(name: str, facts: Mapping[str, Any]) -> Subscriber:
    """A subscriber with these facts. Raises BadInput, which names the field, the value, and the rule."""
    try:
        return Subscriber.model_validate({**facts, "name": name})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        value = f" {first['input']!r}:" if place and first["type"] not in ("missing", "value_error") else ""
        raise BadInput(f"subscriber {name}: {f'{place}:{value} ' if place else ''}{plain_rule(first)}") from None


@dataclass
class Registry:
    """The subscribers in a file, by name. Writing keeps the file's comments and order."""

    path: Path
    subscribers: dict[str, Subscriber]
    _document: tomlkit.TOMLDocument

    @classmethod
    def read(cls, path: Path, *, may_be_missing: bool = False) -> Self:
        """Read and check a file. Raises BadInput if it is missing or invalid."""
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError:
            if not may_be_missing:
                raise BadInput(f"{path}: there is no such subscribers' file (--file, --subscribers)") from None
            text = ""
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{path}: cannot be read: {error}") from None
        try:
            tables, document = tomllib.loads(text), tomlkit.parse(text)  # the former explains an error better
        except (ParseError, tomllib.TOMLDecodeError) as error:
            raise BadInput(f"{path}: is not TOML: {error}") from None
        for name, table in tables.items():
            if not isinstance(table, dict):
                raise BadInput(f"{path}: {name}: must be a subscriber's table, such as [treasury-dashboard]")
        return cls(path, {name: checked(name, table) for name, table in tables.items()}, document)

    def __getitem__(self, name: str) -> Subscriber:
        if name not in self.subscribers:
            raise NotFound(f"no subscriber {name} in {self.path}{_nearest(name, self.subscribers)}")
        return self.subscribers[name]

    def acls(self, prefix: str, principal: str) -> Iterator[Acl]:
        """The ACLs that all subscribers need."""
        for subscriber in self.subscribers.values():
            yield from subscriber.acls(prefix, principal)

    def put(self, subscriber: Subscriber) -> None:
        """Add or replace a subscriber, and write the file."""
        with self._changing():
            table = self._document.setdefault(subscriber.name, tomlkit.table())
            for field, value in subscriber.model_dump(exclude={"name"}).items():
                table[field] = _array(value) if isinstance(value, tuple) else value
            self.subscribers[subscriber.name] = subscriber

    def drop(self, name: str) -> None:
        """Remove a subscriber if it is still there, and write the file."""
        with self._changing():
            if self.subscribers.pop(name, None) is not None:
                self._document.remove(name)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """A block that changes what is in the file by now, which another command may have written since."""
        try:
            with self.path.with_name(f".{self.path.name}.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                newest = Registry.read(self.path, may_be_missing=True)
                self.subscribers, self._document = newest.subscribers, newest._document
                yield
                self._write()
        except OSError as error:
            raise BadInput(f"{self.path}: cannot be written: {error.strerror}") from None

    def _write(self) -> None:
        new = self.path.with_name(f".{self.path.name}.new")
        with new.open("w", encoding="utf-8") as file:
            file.write(tomlkit.dumps(self._document))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)


def _array(names: Sequence[str]) -> Any:
    array = tomlkit.array()
    array.extend(names)
    return array.multiline(len(names) > 1)


def _unknown(name: str) -> str:
    """Why an event type is unknown: its major version, or the whole type."""
    try:
        family, _ = split_type(name) or ("", 0)
    except MalformedRecord:
        family = ""
    majors = [known for known in event_types() if known.rsplit(".v", 1)[0] == family]
    if majors:
        return f"{name} is unknown: this event has {' and '.join(majors)}"
    return f"{name} is not an event of Muster{_nearest(name, event_types())}"


def _nearest(name: str, known: Collection[str]) -> str:
    """A suggestion of the known name closest to this one; empty if none is close."""
    return did_you_mean(get_close_matches(name, known, n=1, cutoff=0.5))
