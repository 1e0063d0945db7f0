"""The gate as a command: how a release is created and kept, and how a missing one is noticed."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from muster_contracts import __version__
from muster_contracts.compatibility import current, misnumbered, unreleased
from muster_contracts.releases import HASHES, GateError, read_releases

RELEASED = Path(__file__).parents[2] / "contracts/released"

# The version of today's models once they are released.
VERSION = __version__.removesuffix(".dev")


NEWEST = read_releases(RELEASED)[-1]["version"]


def test_a_schema_that_is_not_released_is_refused() -> None:
    today = current() | {"version": VERSION}
    assert unreleased(today, today) == []
    assert unreleased(today, today | {"version": "9.0.0.dev", "schemas": {}}) == []
    (refusal,) = unreleased(today, today | {"schemas": {}})
    assert "schemas changed since the release of the same version" in refusal.rule


@pytest.mark.parametrize("version", ["1.2.3", "1.2.3.dev", "1.2.4.dev", "1.3.0.dev", "2.0.0.dev"])
def test_a_version_that_is_the_newest_release_or_may_follow_it_is_accepted(version: str) -> None:
    assert misnumbered([{"version": "1.2.3"}], version) == []


@pytest.mark.parametrize("version", ["1.2.2", "1.2.4", "2.0.0", "1.2.2.dev", "1.2.5.dev", "1.4.0.dev", "3.0.0.dev"])
def test_a_version_that_does_not_follow_the_newest_release_is_refused(version: str) -> None:
    (refusal,) = misnumbered([{"version": "1.2.3"}], version)
    assert f"the version is {version}, and the newest release is 1.2.3" in refusal.rule


def gate(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The gate as it is run by hand and in CI."""
    command = [sys.executable, "-m", "muster_contracts.compatibility", "--directory", str(directory), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def kept(directory: Path, *, without: str = "") -> Path:
    """A copy of the releases; one may be omitted, with its line in the list."""
    for path in RELEASED.glob("*.json"):
        if path.stem != without:
            (directory / path.name).write_bytes(path.read_bytes())
    lines = (RELEASED / HASHES).read_text("utf-8").splitlines(keepends=True)
    (directory / HASHES).write_text("".join(line for line in lines if f"  {without}.json" not in line), "utf-8")
    return directory


def step(version: str) -> str:
    """The minor version that follows a version."""
    major, minor, _ = version.split(".")
    return f"{major}.{int(minor) + 1}.0"


def test_the_gate_keeps_a_release_that_follows_the_newest_and_refuses_a_planted_change(tmp_path: Path) -> None:
    further = step(NEWEST)
    kept(tmp_path)
    for wrong in (NEWEST, step(further), "0.0.9", "next"):
        refused = gate(tmp_path, "--release", wrong)
        assert refused.returncode == 2, refused.stderr
        assert f"VERSION: '{wrong}' is refused: after {NEWEST} comes" in refused.stderr
    done = gate(tmp_path, "--release", further)
    assert done.returncode == 0, done.stderr
    assert [release["version"] for release in read_releases(tmp_path)][-2:] == [NEWEST, further]

    path = tmp_path / f"{further}.json"
    was = path.read_text("utf-8")
    released = json.loads(was)
    released["schemas"]["muster.billing.TermStarted.v1"]["properties"]["number"]["minimum"] = 0
    path.write_text(json.dumps(released), encoding="utf-8")
    assert f"{path.name} is not what was released" in gate(tmp_path).stderr
    hashes = (tmp_path / HASHES).read_text("utf-8").splitlines(keepends=True)[:-1]
    listed = "".join([*hashes, f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"])
    (tmp_path / HASHES).write_text(listed, "utf-8")
    refused = gate(tmp_path)
    assert refused.returncode == 1
    assert f"since {further}: muster.billing.TermStarted.v1, number: minimum changed from 0 to 1" in refused.stderr
    assert "add muster.billing.TermStarted.v2 beside it" in refused.stderr

    (tmp_path / HASHES).unlink()
    assert "is not listed in SHA256SUMS" in gate(tmp_path).stderr


@pytest.mark.parametrize("options", [[], ["--release", "0.1.0"]])
@pytest.mark.parametrize("listed", [True, False])
def test_without_a_release_nothing_passes_and_none_is_created(tmp_path: Path, options: list[str], listed: bool) -> None:
    if listed:
        (tmp_path / HASHES).write_bytes((RELEASED / HASHES).read_bytes())
    refused = gate(tmp_path, *options)
    rule = "0.1.0.json is listed in SHA256SUMS but is missing" if listed else "there is no release in"
    assert (refused.returncode, rule in refused.stderr) == (1, True), refused.stderr
    assert list(tmp_path.glob("*.json")) == []


@pytest.mark.parametrize("version", [path.stem for path in sorted(RELEASED.glob("*.json")) if path.stem != NEWEST])
def test_a_release_that_is_gone_with_its_line_is_noticed_by_its_neighbors(tmp_path: Path, version: str) -> None:
    with pytest.raises(GateError, match=r"there is no release between .*: one is gone"):
        read_releases(kept(tmp_path, without=version))


def test_the_newest_release_gone_with_its_line_is_noticed_by_the_version(tmp_path: Path) -> None:
    refused = gate(kept(tmp_path, without=NEWEST), "--release", NEWEST)
    assert refused.returncode == 1, refused.stdout
    assert "and the newest release is" in refused.stderr


def test_the_tree_matches_the_release_of_its_version() -> None:
    passed = gate(RELEASED)
    assert passed.returncode == 0, passed.stderr


def test_a_missing_release_is_noticed(tmp_path: Path) -> None:
    assert read_releases(kept(tmp_path))
    (tmp_path / "0.1.0.json").rename(tmp_path / "0.1.9.json")
    with pytest.raises(GateError, match=r"0\.1\.0\.json is listed in SHA256SUMS but is missing"):
        read_releases(tmp_path)
