"""How the images are built: reproducibly, from the lock alone, and for another architecture too."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from infra.images import locked as lock
from infra.images.archive import write_archive
from infra.images.build import Bases, image, reference
from infra.supply_chain.packages import ROOT


def test_an_image_built_without_the_cache_is_the_same(tmp_path: Path, locked: Mapping[str, Any]) -> None:
    again = write_archive(image("operator", Bases(), cache=False), reference("operator"), tmp_path / "operator.tar")
    assert again.digest == locked["operator"]["digest"]
    assert again.sha256 == locked["operator"]["archive_sha256"]


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_every_package_has_a_wheel_for_the_architecture(architecture: str, tmp_path: Path) -> None:
    folders = [ROOT / "contracts", *sorted((ROOT / "services").iterdir()), ROOT / "infra/operator"]
    pinned = lock.entries((ROOT / "requirements.lock").read_text("utf-8"))
    names = lock.needed(lock.declared(folders), ROOT / "requirements.lock")
    (requirements := tmp_path / "requirements.txt").write_text(lock.pick(names, pinned), "utf-8")
    command = [
        *(sys.executable, "-m", "uv", "pip", "install", "--dry-run", "--quiet", "--no-build", "--no-deps"),
        *("--python-platform", f"{architecture}-manylinux_2_36", "--python-version", "3.11", "--require-hashes"),
        *("--target", str(tmp_path / "target"), "--requirement", str(requirements)),
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_a_name_that_the_lock_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"requirements\.lock has no unheard-of: run `make lock`"):
        lock.pick(["unheard-of"], lock.entries("heard-of==1 \\\n    --hash=sha256:00\n"))
