"""Muster's own packages, and what the lock pins."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

import muster_contracts

ROOT = Path(__file__).parents[2]

_FOLDERS = (
    "contracts",
    "contracts/client",
    "services/runtime",
    "services/enrollment",
    "services/entitlements",
    "services/billing",
    "services/notify",
    "infra/operator",
    "infra/local",
)

_PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", re.MULTILINE)
_NOT_NAME = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True)
class Package:
    """A package of this repository: `requires` are the names of what it declares."""

    folder: Path
    name: str
    version: str
    description: str
    license: str
    requires: tuple[str, ...]


def own_packages() -> list[Package]:
    """The packages of this repository."""
    return [_package(ROOT / folder) for folder in _FOLDERS]


def locked(lock: str) -> dict[str, str]:
    """The version of each package that the text of a lock pins, by its normalized name."""
    return {canonicalize_name(name): version for name, version in _PINNED.findall(lock)}


def _package(folder: Path) -> Package:
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    return Package(
        folder=folder,
        name=project["name"],
        version=project.get("version", muster_contracts.__version__),  # only the contracts keep theirs in their code
        description=project["description"],
        license=project["license"],
        requires=tuple(canonicalize_name(_NOT_NAME.split(each)[0]) for each in project["dependencies"]),
    )
