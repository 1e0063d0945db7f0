"""The gate that keeps today's models readable beside every release, both ways.

Topics are kept forever: new readers meet old records, and old readers new ones. The gate compares today's schemas with
each release's, and what today's models make of each release's records with what those said, value by value and header
by header. It guards what is released, so today's models must be the newest release's, or a version that ends in `.dev`.

`python -m muster_contracts.compatibility` checks; `make release-contracts VERSION=…` is the one way to release.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jsonschema_rs import Draft202012Validator

from muster_contracts import __version__
from muster_contracts.codec import Decoded, decode, encode
from muster_contracts.envelope import OPTIONAL_HEADERS, MalformedRecord, write_headers
from muster_contracts.event import event_types
from muster_contracts.generate.schemas import as_json, record_of, schema_of
from muster_contracts.releases import HASHES, GateError, Release, followers_of, numbers_of, read_releases, sha256
from muster_contracts.samples import read_back, samples_of
from muster_contracts.schema_comparison import Refusal, compare, new_major
from muster_contracts.testing import golden_records
from muster_contracts.topics import topics

_GUARDED_OF_TOPICS = ("owner", "key", "partitions", "cleanup_policy", "retention_ms", "access")

_RELEASE_IT = "release it: make release-contracts VERSION=…"

_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")


def current() -> Release:
    """Today's models, in the form of a release."""
    return {
        "version": __version__,
        "topics": {name: topic.model_dump(mode="json") for name, topic in topics().items()},
        "schemas": {name: schema_of(event_class) for name, event_class in event_types().items()},
        "records": [record_of(golden) for golden in golden_records()],
        "samples": {name: samples_of(event_class) for name, event_class in event_types().items()},
    }


def refusals(released: Release, today: Release) -> list[Refusal]:
    """Changes since a release that break a reader; empty if both are compatible."""
    return [
        *_topic_refusals(released["topics"], today["topics"]),
        *_event_refusals(released["schemas"], today["schemas"]),
    ]


def misread(released: Release, today: Release) -> list[Refusal]:
    """A release's records that today's models read differently, and today's records that its readers would refuse."""
    return [
        *(refusal for record in released["records"] for refusal in _reread(record)),
        *_resampled(released.get("samples", {})),
        *_refused_by_old_readers(released, today),
    ]


def misnumbered(releases: Sequence[Release], version: str) -> list[Refusal]:
    """A refusal unless the version is the newest release's, or a `.dev` version of that release or of a successor."""
    newest = releases[-1]["version"]
    follows = version.endswith(".dev") and numbers_of(version) in followers_of(newest)
    if version.removesuffix(".dev") == newest or follows:
        return []
    rule = f"the version is {version}, and the newest release is {newest}"
    return [Refusal("muster-contracts", "__version__", rule, _RELEASE_IT)]


def unreleased(newest: Release, today: Release) -> list[Refusal]:
    """A refusal if today's models have the newest release's version, but are not that release's models."""
    if today["version"] != newest["version"]:
        return []
    # A release says what it said when it was made: later gates keep more of one.
    changed = [part for part in newest if today[part] != newest[part]]
    rule = f"{' and '.join(changed)} changed since the release of the same version, {newest['version']}"
    return [Refusal("muster-contracts", "", rule, _RELEASE_IT)] if changed else []


def _topic_refusals(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Refusal]:
    for name, topic in old.items():
        if name not in new:
            yield Refusal(name, "", "the topic is gone or renamed", "keep it: its records are kept forever")
            continue
        for setting in _GUARDED_OF_TOPICS:
            if topic[setting] != new[name][setting]:
                rule = f"{setting} changed from {topic[setting]} to {new[name][setting]}"
                yield Refusal(name, setting, rule, "make a new topic, and publish to both until readers have moved")


def _event_refusals(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Refusal]:
    for event_type, schema in old.items():
        if event_type in new:
            yield from compare(event_type, schema, new[event_type])
        else:
            instead = "keep the class: its records are kept forever; a new name is a new event beside it"
            yield Refusal(event_type, "", "the event is gone or renamed", instead)


def _reread(record: Any) -> Iterator[Refusal]:
    """What today's models read of a released record, written again, beside what it said."""
    headers = [(name, value.encode()) for name, value in record["headers"]]
    value = None if record["value"] is None else record["value"].encode()
    event_type = dict(record["headers"])["ce_type"]
    instead = new_major(event_type)
    try:
        decoded = decode(headers, value, record["key"].encode())
    except MalformedRecord as error:
        yield Refusal(event_type, "", f"a released record is refused: {error}", instead)
        return
    if not isinstance(decoded, Decoded) or decoded.event.record_key != record["key"]:
        yield Refusal(event_type, "", "a released record is read as another", instead)
        return
    again = dict(write_headers(decoded.envelope))
    for name, text in headers:
        if again.get(name) != text:
            yield Refusal(event_type, name, f"the header of a released record becomes {again.get(name)!r}", instead)
    for place, before, after in differences(json.loads(value or b"null"), json.loads(encode(decoded.event) or b"null")):
        yield Refusal(event_type, place, f"a released record's {before} becomes {after}", instead)


def differences(old: Any, new: Any, place: str = "") -> Iterator[tuple[str, str, str]]:
    """Where a value that was read and written again is another: place, what it was, what it became.

    Fields that an object did not have are none of the released reader's, and may come.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for name, value in old.items():
            at = f"{place}.{name}".lstrip(".")
            if name in new:
                yield from differences(value, new[name], at)
            else:
                yield at, json.dumps(value), "nothing"
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from differences(one, other, f"{place}[{number}]")
    elif type(old) is not type(new) or old != new:
        yield place, json.dumps(old), json.dumps(new)


def _resampled(samples: dict[str, list[str]]) -> Iterator[Refusal]:
    for event_type, values in samples.items():
        event_class = event_types().get(event_type)
        for value in values if event_class else ():
            assert event_class is not None
            again = read_back(event_class, value)
            if again is None:
                yield Refusal(event_type, "", f"a released value is refused: {value}", new_major(event_type))
                continue
            for place, before, after in differences(json.loads(value), json.loads(again)):
                rule = f"a released value's {before} becomes {after}"
                yield Refusal(event_type, place, rule, new_major(event_type))


def _refused_by_old_readers(released: Release, today: Release) -> Iterator[Refusal]:
    """Today's golden records and samples that a released schema, or a reader of its headers, does not take."""
    known = {dict(record["headers"])["ce_type"]: dict(record["headers"]).keys() for record in released["records"]}
    for record in today["records"]:
        headers = dict(record["headers"])
        event_type = headers["ce_type"]
        if event_type not in known:
            continue
        yield from _refused_by_schema(released, event_type, [record["value"] or "null"])
        if missing := known[event_type] - headers.keys() - OPTIONAL_HEADERS:
            rule = f"today's record lacks the header {min(missing)}"
            yield Refusal(event_type, "", rule, new_major(event_type))
    for event_type, values in today.get("samples", {}).items():
        if event_type in released["schemas"]:
            yield from _refused_by_schema(released, event_type, values)


def _refused_by_schema(released: Release, event_type: str, values: Sequence[str]) -> Iterator[Refusal]:
    """Values of today that a release's schema refuses: each place and rule once."""
    validator = Draft202012Validator(released["schemas"][event_type])
    found: dict[tuple[str, str], str] = {}
    for value in values:
        for error in validator.iter_errors(json.loads(value)):
            place = ".".join(map(str, error.instance_path))
            found.setdefault((place, error.kind.name), error.message[:200])
    for (place, _), message in found.items():
        rule = f"a released reader refuses today's record: {message}"
        yield Refusal(event_type, place, rule, new_major(event_type))


def main() -> int:
    """The command; its status is 1 when a release and today's models cannot live with each other, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m muster_contracts.compatibility")
    parser.add_argument("--release", metavar="VERSION", help="keep today's models as this release")
    parser.add_argument("--directory", type=Path, default=Path(__file__).parents[1] / "released")
    options = parser.parse_args()
    try:
        releases = read_releases(options.directory)
    except GateError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    today = current()
    found = [
        (release["version"], refusal)
        for release in releases
        for refusal in refusals(release, today) + misread(release, today)
    ]
    newest = releases[-1]
    found += [(newest["version"], refusal) for refusal in misnumbered(releases, today["version"])]
    if not options.release:
        found += [(newest["version"], refusal) for refusal in unreleased(newest, today)]
    for version, refusal in found:
        sys.stderr.write(f"since {version}: {refusal}\n")
    if found:
        return 1
    if options.release:
        return _keep(today, newest["version"], options.release, options.directory)
    sys.stdout.write(f"{len(today['schemas'])} events are compatible with {len(releases)} releases, both ways\n")
    return 0


def _keep(today: Release, newest: str, version: str, directory: Path) -> int:
    if not _VERSION.fullmatch(version) or numbers_of(version) not in followers_of(newest):
        allowed = " or ".join(".".join(map(str, parts)) for parts in followers_of(newest))
        sys.stderr.write(f"VERSION: {version!r} is refused: after {newest} comes {allowed}\n")
        return 2
    path = directory / f"{version}.json"
    path.write_text(as_json({**today, "version": version}), encoding="utf-8")
    with (directory / HASHES).open("a", encoding="utf-8") as file:
        file.write(f"{sha256(path)}  {path.name}\n")
    sys.stdout.write(f"kept {path.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
