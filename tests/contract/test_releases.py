"""What each release says of its schemas is so, and no release breaks the code of the one before and goes on from it."""

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import pytest

from muster_contracts import SERVICES
from muster_operator.releases import LAST_UNTAGGED, Window, read_releases
from muster_runtime.database.schema import OPTIONAL, Schema, files_of, tags_of
from tests.support.databases import SOURCES

# The version in development, of all packages.
CURRENT = version("muster-runtime")

HEADS = ("20260101000000", "20260201000000")


def faults(files: Mapping[str, Path], before: str) -> Iterator[str]:
    """What is wrong with the tags of a service's migrations; `before` is the last one of the release before."""
    kinds: dict[str, list[str]] = {"expand": [], "contract": []}
    for number, file in sorted(files.items()):
        tags = tags_of(file)
        kind = [tag for tag in tags if tag in kinds]
        if unknown := sorted({*tags} - {*kinds, OPTIONAL}):
            yield f"{file.name}: `-- muster: {unknown[0]}` must be expand, contract, or optional"
        elif len(kind) > 1 or (not kind and number > LAST_UNTAGGED):
            yield f"{file.name}: must have one line `-- muster: expand` or `-- muster: contract`"
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
        (["expand", "contract"], "one release cannot both expand (20260101000000_a.sql) and contract ("),
        (["", "expand"], "20260101000000_a.sql: must have one line"),
        (["expand\n-- muster: contract", "expand"], "20260101000000_a.sql: must have one line"),
        (["expanding", "expand"], "20260101000000_a.sql: `-- muster: expanding` must be expand, contract, or optional"),
    ],
)
def test_a_wrong_tag_is_named(tmp_path: Path, tags: list[str], fault: str) -> None:
    files = {}
    for number, tag in zip(HEADS, tags, strict=True):
        files[number] = tmp_path / f"{number}_a.sql"
        files[number].write_text(f"-- migrate:up\n{tag and f'-- muster: {tag}'}\nselect 1;\n", "utf-8")
    found = list(faults(files, LAST_UNTAGGED))
    assert (len(found), (found or [""])[0].startswith(fault)) == (1 if fault else 0, True), found


def test_what_was_released_before_may_have_been_the_other_kind(tmp_path: Path) -> None:
    files = {number: tmp_path / f"{number}_a.sql" for number in HEADS}
    for file, tag in zip(files.values(), ("expand", "contract"), strict=True):
        file.write_text(f"-- migrate:up\n-- muster: {tag}\n", "utf-8")
    assert list(faults(files, HEADS[0])) == []
