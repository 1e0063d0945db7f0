"""The repository: the targets that make and CI run, and the license."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def test_every_target_is_phony() -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", MAKEFILE, re.MULTILINE))
    (phony,) = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert len(targets) > 10  # a search that finds none proves nothing
    assert set(phony.split()) == targets


def test_ci_runs_targets_that_exist() -> None:
    run = re.findall(r"^(?:make|suite) ([a-z0-9-]+)$", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    checks = ["lint", "supply-chain", "contracts-check", "metrics-check"]
    assert run == [*checks, "test", "e2e", "fuzz", "faults", "faults-pooler", "bench-quick", "cluster-test-quick"]
    assert set(run) <= set(re.findall(r"^([a-z0-9-]+): venv", MAKEFILE, re.MULTILINE))


def test_every_package_declares_the_license() -> None:
    packages = [*ROOT.glob("contracts/pyproject.toml"), *ROOT.glob("*/*/pyproject.toml")]
    assert len(packages) > 5
    for package in packages:
        assert tomllib.loads(package.read_text("utf-8"))["project"]["license"] == "Apache-2.0", package
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text("utf-8")
