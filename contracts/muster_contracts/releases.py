"""The releases of the contracts, as they are kept: one JSON file each, and the list of their hashes."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# The hash of each release, so that none changes or goes unseen.
HASHES = "SHA256SUMS"

# What the first release follows.
_NOTHING = "0.0.0"

Release = dict[str, Any]
"""`version`, `topics` by name, `schemas` by type, the golden `records`, and further `samples` by type."""


class GateError(Exception):
    """The gate cannot judge: there is no release, or one was changed. The message says which."""


def read_releases(directory: Path) -> list[Release]:
    """Every release in a folder, the oldest first. Raises GateError where one is missing, changed, or there is none."""
    files = sorted(directory.glob("*.json"))
    listed = _read_hashes(directory)
    found = {path.name: sha256(path) for path in files}
    for name in sorted(listed.keys() | found.keys()):
        if name not in found:
            raise GateError(f"{name} is listed in {HASHES} but is missing: a release is kept forever")
        if name not in listed:
            raise GateError(
                f"{name} is not listed in {HASHES}: make release-contracts VERSION=… is the one way to release"
            )
        if listed[name] != found[name]:
            raise GateError(
                f"{name} is not what was released: its SHA-256 is {found[name]}, {HASHES} says {listed[name]}"
            )
    if not files:
        raise GateError(f"there is no release in {directory}: nothing would be guarded")
    releases = sorted(
        (json.loads(path.read_text("utf-8")) for path in files), key=lambda each: numbers_of(each["version"])
    )
    _require_each(releases)
    return releases


def _require_each(releases: Sequence[Release]) -> None:
    """Raises GateError where one is gone together with its line in the list: versions go up by single steps."""
    before = _NOTHING
    for release in releases:
        if numbers_of(release["version"]) not in followers_of(before):
            raise GateError(f"there is no release between {before} and {release['version']}: one is gone")
        before = release["version"]


def _read_hashes(directory: Path) -> dict[str, str]:
    path = directory / HASHES
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return {name: digest for digest, name in (line.split() for line in lines)}


def sha256(path: Path) -> str:
    """The hash of a file, as the list has it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def numbers_of(version: str) -> list[int]:
    """Major, minor and patch."""
    return [int(part) for part in version.split(".")[:3]]


def followers_of(version: str) -> list[list[int]]:
    """The versions that may follow one: the next patch, minor and major."""
    major, minor, patch = numbers_of(version)
    return [[major, minor, patch + 1], [major, minor + 1, 0], [major + 1, 0, 0]]
