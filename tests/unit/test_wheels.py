"""Each package's wheel: the same bytes wherever and whenever it is built, and the right metadata."""

import shutil
from email import message_from_string
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import pytest
from hatchling.builders.wheel import WheelBuilder

from infra.supply_chain.packages import ROOT, Package, own_packages

# The time that every file of a wheel gets, in seconds since 1970.
EPOCH = "1754438400"


@pytest.fixture(params=own_packages(), ids=lambda package: package.name)
def package(request: pytest.FixtureRequest) -> Package:
    """Each package of the repository."""
    found: Package = request.param
    return found


@pytest.fixture
def wheel(package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's wheel."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    return build(package.folder, tmp_path / "first")


def build(source: Path, folder: Path) -> Path:
    """Build the wheel of a source tree in a folder."""
    (built,) = WheelBuilder(str(source)).build(directory=str(folder), versions=["standard"])
    return Path(built)


def test_a_wheel_has_the_same_bytes_built_elsewhere_and_later(package: Package, wheel: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(package.folder, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    again = build(copied, tmp_path / "again")
    assert again.name == wheel.name
    assert sha256(again.read_bytes()).hexdigest() == sha256(wheel.read_bytes()).hexdigest()


def test_a_wheel_has_the_right_metadata(package: Package, wheel: Path) -> None:
    with ZipFile(wheel) as files:
        folder = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
        described = message_from_string(files.read(f"{folder}/METADATA").decode())
        assert files.read(f"{folder}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert (described["Name"], described["Version"]) == (package.name, package.version)
    assert described["License-Expression"] == "Apache-2.0"
    assert described["License-File"] == "LICENSE"
    assert described["Description-Content-Type"] == "text/markdown"
    assert described.get_payload() == (package.folder / "README.md").read_text("utf-8")
    assert {url.partition(",")[0] for url in described.get_all("Project-URL", [])} == {"Documentation", "Changelog"}
