"""The supply-chain checks find what is planted: a license, a secret, a package that the SBOM lacks."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from infra.supply_chain import sbom, spdx
from infra.supply_chain.packages import ROOT, locked, own_packages

RULES = """
allowed = ["Apache-2.0", "MIT"]

[stated.unclear]
license = "MIT"
reason = "its file"

[excepted.tool]
license = "GPL-2.0-only"
reason = "a program of its own"
"""


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a supply-chain program."""
    command = [sys.executable, "-m", f"infra.supply_chain.{program}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def install(folder: Path, name: str, *said: str) -> None:
    """Write a package's metadata to a folder."""
    (folder / f"{name}-1.0.dist-info").mkdir(parents=True)
    lines = ["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *said]
    (folder / f"{name}-1.0.dist-info/METADATA").write_text("\n".join(lines) + "\n", "utf-8")


def test_a_license_that_is_not_allowed_is_named_with_its_package(tmp_path: Path) -> None:
    (rules := tmp_path / "licenses.toml").write_text(RULES, "utf-8")
    site = tmp_path / "site"
    install(site, "good", "License-Expression: MIT")
    install(site, "choice", "License-Expression: GPL-3.0-only OR Apache-2.0")
    install(site, "classified", "Classifier: License :: OSI Approved :: MIT License")
    install(site, "unclear", "License: as you like it")
    install(site, "tool", "License-Expression: GPL-2.0-only")
    clean = run("licenses", "--path", site, "--rules", rules)
    assert (clean.returncode, clean.stdout) == (0, "5 packages, each with an allowed license\n"), clean.stderr

    install(site, "planted", "License-Expression: AGPL-3.0-only")
    install(site, "sum", "License-Expression: MIT AND SSPL-1.0")
    install(site, "silent")
    install(site, "wordy", "License: Copyright 2026 Somebody. Permission is hereby granted, (MIT")
    shutil.rmtree(site / "unclear-1.0.dist-info")
    found = run("licenses", "--path", site, "--rules", rules)
    assert found.returncode == 1
    assert found.stderr.splitlines() == [
        "planted 1.0: AGPL-3.0-only is not an allowed license",
        "silent 1.0: no license is not an allowed license",
        "sum 1.0: MIT AND SSPL-1.0 is not an allowed license",
        "wordy 1.0: Copyright 2026 Somebody. Permission is hereby granted, (MIT is not an allowed license",
        "licenses.toml: unclear is not installed; remove its entry",
    ]


def test_a_secret_is_found_at_its_line_and_a_stale_baseline_entry_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    baseline = json.loads((ROOT / "infra/supply_chain/secrets.baseline.json").read_text("utf-8"))
    (known := tmp_path / "baseline.json").write_text(json.dumps(baseline | {"results": {}}), "utf-8")
    (folder / "settings.py").write_text('region = "us"\n', "utf-8")
    clean = run("find_secrets", folder, "--baseline", known)
    assert (clean.returncode, clean.stderr) == (0, "")

    planted = "AKIA" + "IOSFODNN7" + "EXAMPLE"  # in parts, so that it is not found here
    (folder / "settings.py").write_text(f'region = "us"\nkey = "{planted}"\n', "utf-8")
    found = run("find_secrets", folder, "--baseline", known)
    assert found.returncode == 1
    assert "settings.py:2: AWS Access Key" in found.stderr.splitlines()
    assert planted not in found.stderr + found.stdout

    assert run("find_secrets", folder, "--baseline", known, "--update").returncode == 0
    assert run("find_secrets", folder, "--baseline", known).returncode == 0
    (folder / "settings.py").write_text('region = "us"\n', "utf-8")
    stale = run("find_secrets", folder, "--baseline", known)
    assert stale.returncode == 1
    assert "settings.py: the baseline's AWS Access Key is gone; remove its entry" in stale.stderr.splitlines()


def test_the_sbom_has_every_package_and_a_missing_one_is_named(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    text = (ROOT / "requirements.lock").read_text("utf-8")
    needed = {name for package in own_packages() for name in package.requires}
    lines = [f"{name}=={version}\n" for name, version in locked(text).items() if name in needed]
    lock.write_text("".join(lines), "utf-8")
    document = sbom.make(lock)
    sbom.validate(document)
    assert sbom.make(lock) == document
    assert "timestamp" not in document
    assert "serialNumber" not in document

    (file := tmp_path / "muster.cdx.json").write_text(document, "utf-8")
    (other := tmp_path / "muster.spdx.json").write_text(spdx.make(json.loads(document)), "utf-8")
    listed = parse_file(str(other))
    assert [fault.validation_message for fault in validate_full_spdx_document(listed)] == []
    components = {each["name"]: each["version"] for each in json.loads(document)["components"]}
    assert {each.name: each.version for each in listed.packages} == components | {"muster": None}
    assert {str(each.license_declared) for each in listed.packages if each.name == "asyncpg"} == {"Apache-2.0"}

    assert run("sbom", "check", file, "--lock", lock).returncode == 0
    parsed = json.loads(document)
    (program,) = (each for each in parsed["dependencies"] if each["ref"] == "muster")
    assert sorted(ref.split("/")[1].split("@")[0] for ref in program["dependsOn"]) == sorted(
        package.name for package in own_packages()
    )
    parsed["components"] = [each for each in parsed["components"] if each["name"] not in ("asyncpg", "muster-notify")]
    file.write_text(json.dumps(parsed), "utf-8")
    found = run("sbom", "check", file, "--lock", lock)
    assert found.returncode == 1
    versions = locked(text) | {package.name: package.version for package in own_packages()}
    assert found.stderr.splitlines() == [
        f"{file} lacks {name}=={versions[name]}" for name in ("asyncpg", "muster-notify")
    ]
