"""What the code of each release needs of the schemas, and whether it can run on the schemas as they are. Pure."""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

# Migrations up to this one say nothing of themselves: they count as expanding.
LAST_UNTAGGED = "20250814009000"


@dataclass(frozen=True)
class Window:
    """The versions of a service's schema that the code of a release needs and knows.

    `contract` are the migrations of the release that take something from the code of the release before.
    """

    schema_min: str
    schema_head: str
    contract: Collection[str] = ()


TABLE = Path(__file__).with_name("releases.toml")

# By release and service.
Releases = Mapping[str, Mapping[str, Window]]


def read_releases(file: Path = TABLE) -> Releases:
    """The releases that this command knows."""
    tables = tomllib.loads(file.read_text("utf-8"))
    return {
        version: {service: Window(**window) for service, window in services.items()}
        for version, services in tables.items()
    }


@dataclass(frozen=True)
class Verdict:
    """Whether the code of a release can run on a service's schema. `ahead` are the versions that it does not know."""

    service: str
    database: str | None
    can_run: bool
    reason: str
    ahead: Collection[str]


def judge(releases: Releases, version: str, service: str, applied: Collection[str]) -> Verdict:
    """Whether the code of a release can run on a schema with these migrations."""
    window = releases[version][service]
    database = max(applied, default=None)
    ahead = sorted(each for each in applied if each > window.schema_head)
    known = max(release[service].schema_head for release in releases.values())
    broken = [each for each in ahead if any(each in release[service].contract for release in releases.values())]
    unknown = [each for each in ahead if each > known]
    if database is None or database < window.schema_min:
        reason = f"it needs {window.schema_min}: run the migrations of {version} first"
    elif broken:
        reason = f"{', '.join(broken)} took away what it uses: restore a backup from before, or stay"
    elif unknown:
        reason = f"{', '.join(unknown)}: this muster does not know what it does; use that of the release that runs"
    else:
        return Verdict(service, database, can_run=True, reason="", ahead=ahead)
    return Verdict(service, database, can_run=False, reason=reason, ahead=ahead)
