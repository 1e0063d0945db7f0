"""The images' contents, read from their archives: only what they need, owned by root, and with bytecode."""

import json
import re
import stat
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from packaging.utils import canonicalize_name
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from infra.images.build import OUTPUT, source_date_epoch, version
from infra.images.contents import Contents
from infra.supply_chain.packages import ROOT, locked, own_packages

Read = Callable[[str], Contents]

SHIPPED = ("services", "operator")

# The bytes of the unpacked layers.
LIMITS = {"services": 180_000_000, "operator": 240_000_000}

# Shells, package managers, compilers, and interpreters besides Python.
TOOLS = re.compile(
    r"(ba|da|a|z|k)?sh|busybox|pip[\d.]*|uv|uvx|apt|apt-get|dpkg|perl|gcc|g\+\+|cc|c\+\+|ld|as|make|node|java|psql|curl|wget"
)
BUILDERS = {"pip", "setuptools", "wheel", "uv", "hatchling"}

UNCHECKED_HASH = 1


@pytest.fixture(params=SHIPPED)
def name(request: pytest.FixtureRequest) -> str:
    """Each production image."""
    return str(request.param)


def test_an_image_has_no_tools(name: str, contents: Read) -> None:
    programs = {
        entry.name.rpartition("/")[2]
        for entry, _ in contents(name).entries()
        if not entry.isdir() and (entry.mode & stat.S_IXUSR or entry.issym())
    }
    assert "python3.11" in programs  # a search that finds none proves nothing
    assert {program for program in programs if TOOLS.fullmatch(program)} == set()
    assert ("dbmate" in programs, "muster" in programs) == (name == "operator", name == "operator")


def test_an_image_has_exactly_the_packages_that_the_lock_pins(name: str, contents: Read) -> None:
    python, system = contents(name).packages()
    own = {package.name: package.version for package in own_packages()}
    expected = (
        own.keys()
        - {"muster-local", "muster-entitlements-client"}
        - ({"muster-operator"} if name == "services" else set())
    )
    assert {each for each in python if each.startswith("muster-")} == expected
    pinned = locked((ROOT / "requirements.lock").read_text("utf-8")) | own
    assert {each: pinned.get(each) for each in python} == python
    assert python.keys() & BUILDERS == set()
    assert {"ca-certificates", "libc6", "libpython3.11-stdlib", "libssl3"} <= {package.name for package in system}


def test_every_module_has_bytecode_that_no_time_stamp_outdates(name: str, contents: Read) -> None:
    sources: set[str] = set()
    compiled: dict[str, int] = {}
    for entry, layer in contents(name).entries():
        if entry.name.endswith(".py") and entry.isfile():
            sources.add(entry.name)
        elif entry.name.endswith(".cpython-311.pyc"):
            file = layer.extractfile(entry)
            assert file is not None
            of = entry.name.replace("__pycache__/", "").replace(".cpython-311.pyc", ".py")
            compiled[of] = int.from_bytes(file.read(8)[4:], "little")
    assert len(sources) > 2000
    assert sources - compiled.keys() == set()
    assert {of for of, flags in compiled.items() if flags != UNCHECKED_HASH} == set()


def test_files_belong_to_root_and_nobody_else_may_write_them(name: str, contents: Read) -> None:
    writable = set()
    for entry, _ in contents(name).entries():
        assert (entry.uid, entry.gid) == (0, 0), entry.name
        assert entry.mtime == source_date_epoch(), entry.name
        assert not entry.mode & (stat.S_ISUID | stat.S_ISGID), entry.name
        if not entry.issym() and entry.mode & (stat.S_IWGRP | stat.S_IWOTH):
            writable.add((entry.name.rstrip("/"), entry.mode & 0o7777))
    assert writable == {("tmp", 0o1777)}


def test_an_image_says_what_it_is_and_how_to_run_it(name: str, contents: Read) -> None:
    config = contents(name).config["config"]
    assert config["Entrypoint"] == ["/opt/muster/bin/python", "-m"]
    assert not config.get("Cmd")
    assert config["User"] == "65532:65532"
    assert config["StopSignal"] == "SIGTERM"
    assert "Healthcheck" not in config
    assert {"PYTHONDONTWRITEBYTECODE=1", "PYTHONSAFEPATH=1"} <= set(config["Env"])
    labels: Mapping[str, str] = config["Labels"]
    said = {label.removeprefix("org.opencontainers.image."): value for label, value in labels.items()}
    assert said.pop("description")
    assert re.fullmatch(r"[0-9a-f]{40}|modified", said.pop("revision"))
    assert said == {
        "title": f"muster/{name}",
        "version": version(),
        "vendor": "Muster",
        "licenses": "Apache-2.0",
        "documentation": "https://muster.example/docs",
    }


def test_an_image_is_small(name: str, locked: Mapping[str, Any]) -> None:
    assert locked[name]["size"] <= LIMITS[name]


def test_an_images_sboms_list_every_package(name: str, contents: Read, locked: Mapping[str, Any]) -> None:
    python, system = contents(name).packages()
    present = {canonicalize_name(each) for each in (*python, *(package.name for package in system))}
    cyclonedx = json.loads((OUTPUT / f"{name}.cdx.json").read_text("utf-8"))
    assert cyclonedx["metadata"]["component"]["version"] == locked[name]["digest"]
    assert {canonicalize_name(each["name"]) for each in cyclonedx["components"]} == present
    spdx = parse_file(str(OUTPUT / f"{name}.spdx.json"))
    assert [fault.validation_message for fault in validate_full_spdx_document(spdx)] == []
    assert {canonicalize_name(each.name) for each in spdx.packages} == present | {canonicalize_name(f"muster/{name}")}
