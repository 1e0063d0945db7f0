"""The package as a subscriber gets it: a wheel in an empty environment, with only pydantic."""

import json
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from muster_contracts.testing import golden_records

ROOT = Path(__file__).parents[2]
CONTRACTS = ROOT / "contracts"

READ_EVERYTHING = """
import json, sys
from importlib.metadata import distributions
from pathlib import Path
from muster_contracts import Decoded, decode

read = 0
for path in sorted(Path(sys.argv[1]).glob("*/*.record.json")):
    record = json.loads(path.read_text("utf-8"))
    value = None if record["value"] is None else record["value"].encode()
    decoded = decode([(name, text.encode()) for name, text in record["headers"]], value, record["key"].encode())
    assert isinstance(decoded, Decoded), path
    read += 1
print(json.dumps({"read": read, "installed": sorted(d.metadata["Name"].lower() for d in distributions())}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=CONTRACTS, check=True, capture_output=True)
    (built,) = folder.glob("muster_contracts-*.whl")
    return built


def test_the_wheel_holds_types_and_topics(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    assert "muster_contracts/py.typed" in names
    assert "muster_contracts/topics/muster.billing.term.toml" in names
    metadata = next(name for name in names if name.endswith("METADATA"))
    requires = [
        line
        for line in ZipFile(wheel).read(metadata).decode().splitlines()
        if line.startswith("Requires-Dist") and "extra ==" not in line
    ]
    assert requires == ["Requires-Dist: pydantic>=2.11"]


def installed(folder: Path, requirement: str) -> Path:
    """The interpreter of an environment with only this requirement."""
    uv = [sys.executable, "-m", "uv", "--quiet"]
    python = folder / "empty/bin/python"
    subprocess.run([*uv, "venv", "--python", sys.executable, str(folder / "empty")], check=True)
    # The locked versions, which the setup has already fetched.
    pinned = ["--constraint", str(ROOT / "requirements.lock")]
    subprocess.run([*uv, "pip", "install", "--python", str(python), *pinned, requirement], check=True)
    return python


def test_in_an_empty_environment_the_wheel_decodes_every_golden_record(wheel: Path, tmp_path: Path) -> None:
    python = installed(tmp_path, str(wheel))
    command = [str(python), "-I", "-c", READ_EVERYTHING, str(CONTRACTS / "examples")]
    told = json.loads(subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.PIPE).stdout)

    assert told["read"] == len(list(golden_records()))
    assert told["installed"] == [
        "annotated-types",
        "muster-contracts",
        "pydantic",
        "pydantic_core",
        "typing-inspection",
        "typing_extensions",
    ]


def test_the_gate_of_a_wheel_says_that_it_has_no_releases_to_compare_with(wheel: Path, tmp_path: Path) -> None:
    python = installed(tmp_path, f"muster-contracts[gate] @ {wheel.as_uri()}")
    gate = [str(python), "-I", "-m", "muster_contracts.compatibility"]

    def run(*options: str) -> tuple[int, str, str]:
        done = subprocess.run([*gate, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    for options in ([], ["--release", "0.1.0"]):
        status, told, complaint = run(*options)
        assert (status, told) == (1, ""), complaint
        assert "there is no release in" in complaint
        assert "nothing would be guarded" in complaint
        assert "Traceback" not in complaint
    status, told, complaint = run("--directory", str(CONTRACTS / "released"))
    assert (status, complaint) == (0, "")
    assert "events are compatible with" in told
