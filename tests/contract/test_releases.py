"""What each release says about its schemas is true, and none breaks the code of the previous release."""

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import pytest

from muster_contracts import SERVICES, topics
from muster_operator.releases import LAST_UNTAGGED, Window, read_releases
from muster_runtime.database.schema import OPTIONAL, Schema, contracts, files_of, tags_of
from tests.support.databases import SOURCES

# The version in development, the same for all packages.
CURRENT = version("muster-runtime")

ROOT = Path(__file__).parents[2]

STEMS = ("2026010100000", "2026020100000")


def written(folder: Path, stem: str, tags: str) -> tuple[str, Path]:
    """The version and the file of a migration with these tags."""
    number = f"{stem}{'1' if tags.startswith('contract') else '0'}"
    file = folder / f"{number}_a.sql"
    file.write_text(f"-- migrate:up\n{tags and f'-- muster: {tags}'}\nselect 1;\n", "utf-8")
    return number, file


def faults(files: Mapping[str, Path], before: str) -> Iterator[str]:
    """What is wrong with the tags of a service's migrations; `before` is the last migration of the previous release."""
    kinds: dict[str, list[str]] = {"expand": [], "contract": []}
    for number, file in sorted(files.items()):
        tags = tags_of(file)
        kind = [tag for tag in tags if tag in kinds]
        if unknown := sorted({*tags} - {*kinds, OPTIONAL}):
            yield f"{file.name}: `-- muster: {unknown[0]}` must be expand, contract, or optional"
        elif len(kind) > 1 or (not kind and number > LAST_UNTAGGED):
            yield f"{file.name}: must have one line `-- muster: expand` or `-- muster: contract`"
        elif contracts(number) != ("contract" in kind):
            yield f"{file.name}: the version of a migration that contracts, and of no other, must end in 1"
        elif number > before:
            kinds[kind[0] if kind else "expand"].append(file.name)
    if all(kinds.values()):
        yield f"one release cannot both expand ({kinds['expand'][0]}) and contract ({kinds['contract'][0]})"


@pytest.mark.parametrize("service", SERVICES)
def test_the_table_has_the_window_of_the_version_in_development(service: str) -> None:
    schema = Schema(service, SOURCES / service / f"muster_{service}" / "migrations")
    releases = read_releases()
    before = max((each[service].schema_head for name, each in releases.items() if name != CURRENT), default="")
    files = files_of(schema.migrations)
    contracts = [number for number, file in sorted(files.items()) if number > before and "contract" in tags_of(file)]
    assert releases[CURRENT][service] == Window(schema.minimum, schema.head, contracts), "update releases.toml"
    assert list(faults(files, before)) == []


@pytest.mark.parametrize(
    ("tags", "fault"),
    [
        (["expand", "expand"], ""),
        (["contract", "contract"], ""),
        (["expand\n-- muster: optional", "expand"], ""),
        (
            ["expand", "contract"],
            "one release cannot both expand (20260101000000_a.sql) and contract (20260201000001_a.sql)",
        ),
        (["", "expand"], "20260101000000_a.sql: must have one line"),
        (["expand\n-- muster: contract", "expand"], "20260101000000_a.sql: must have one line"),
        (["expanding", "expand"], "20260101000000_a.sql: `-- muster: expanding` must be expand, contract, or optional"),
    ],
)
def test_a_wrong_tag_is_named(tmp_path: Path, tags: list[str], fault: str) -> None:
    files = dict(written(tmp_path, stem, tag) for stem, tag in zip(STEMS, tags, strict=True))
    found = list(faults(files, LAST_UNTAGGED))
    assert (len(found), (found or [""])[0].startswith(fault)) == (1 if fault else 0, True), found


def test_migrations_of_an_earlier_release_may_be_of_the_other_kind(tmp_path: Path) -> None:
    files = dict(written(tmp_path, stem, tag) for stem, tag in zip(STEMS, ("expand", "contract"), strict=True))
    assert list(faults(files, min(files))) == []


@pytest.mark.parametrize(("tag", "last"), [("expand", "1"), ("contract", "0")])
def test_the_version_says_whether_a_migration_contracts(tmp_path: Path, tag: str, last: str) -> None:
    _, file = written(tmp_path, STEMS[0], tag)
    number = f"{STEMS[0]}{last}"
    (fault,) = faults({number: file}, LAST_UNTAGGED)
    assert fault.endswith("must end in 1")


@pytest.mark.parametrize(("page", "opening"), [("upgrade.md", "Upgrade in this order: "), ("rollback.md", "order: ")])
def test_a_service_is_upgraded_after_its_readers_and_rolled_back_before_them(page: str, opening: str) -> None:
    text = " ".join((ROOT / "infra" / "runbooks" / page).read_text("utf-8").split())
    order = re.split(r", ", re.split(r"[,.] (?:so|A) ", text.partition(opening)[2])[0])
    assert sorted(order) == sorted(SERVICES)
    for topic in topics().values():
        for reader in {*topic.readers} - {topic.owner}:
            # These two read each other's events.
            if topic.owner in SERVICES and {topic.owner, reader} != {"enrollment", "billing"}:
                assert (order.index(reader) < order.index(topic.owner)) == (page == "upgrade.md"), topic.name
