"""Knows which schema versions each release's code needs, and whether it can run on the current schemas. Pure."""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

# Migrations up to this one have no tag; they count as expanding.
LAST_UNTAGGED = "20250814009000"


@dataclass(frozen=True)
class Window:
    """The schema versions of a service that a release's code needs and knows.

    `contract` are the release's migrations that remove something that the previous release's code uses.
    """

    schema_min: str
    schema_head: str
    contract: Collection[str] = ()


TABLE = Path(__file__).with_name("releases.toml")

# By release and service.
Releases = Mapping[str, Mapping[str, Window]]


def read_releases(file: Path = TABLE) -> Releases:
    """The releases in a file like releases.toml."""
    tables = tomllib.loads(file.read_text("utf-8"))
    return {
        version: {service: Window(**window) for service, window in services.items()}
        for version, services in tables.items()
    }


@dataclass(frozen=True)
class Verdict:
    """Whether a release's code can run on a service's schema.

    It is `pending` if only the release's own migrations are missing. `ahead` are applied versions that the code does
    not know.
    """

    service: str
    database: str | None
    can_run: bool
    pending: bool
    reason: str
    ahead: Collection[str]


def judge(releases: Releases, version: str, service: str, applied: Collection[str]) -> Verdict:
    """Whether a release's code can run on a schema with these applied migrations."""
    window = releases[version][service]
    database = max(applied, default=None)
    ahead = sorted(each for each in applied if each > window.schema_head)
    known = max(release[service].schema_head for release in releases.values())
    broken = [each for each in ahead if any(each in release[service].contract for release in releases.values())]
    unknown = [each for each in ahead if each > known]
    pending = False
    if database is None:
        pending, reason = True, "it has no schema there: is it in the database that MUSTER_ADMIN_DSN names?"
    elif broken:
        reason = f"{', '.join(broken)} removed what it uses: restore an earlier backup, or stay"
    elif unknown:
        reason = f"{', '.join(unknown)}: unknown to this muster; use the muster command of the running release"
    elif window.schema_min not in applied:
        pending, reason = True, f"it needs {window.schema_min}: run the migrations of {version} first"
    else:
        return Verdict(service, database, can_run=True, pending=False, reason="", ahead=ahead)
    return Verdict(service, database, can_run=False, pending=pending, reason=reason, ahead=ahead)
