"""Builds the Dockerfile's images, and writes each to build/images as an archive with its SBOMs."""

import hashlib
import json
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.images.archive import Archived, write_archive
from infra.images.base import local_base
from infra.images.sbom import write_sboms
from infra.images.tools import STORAGE, BuildFailed, buildah, install_missing
from infra.supply_chain.packages import ROOT, own_packages

OUTPUT = ROOT / "build" / "images"
LOCK = OUTPUT / "images.lock"
NAMES = ("services", "operator", "test-servers")

_SOURCES = ("requirements.lock", "contracts", "services", "infra/operator", "infra/local", "infra/images")

_HERE = Path(__file__).parent
_DOCKERFILE = _HERE / "Dockerfile"
_IGNORED = _HERE / "Dockerfile.dockerignore"

# The authorities that this machine trusts, so that the build can reach a registry with the site's own certificate.
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True, slots=True)
class Bases:
    """The images to build on (`base`) and to run on (`runtime`), unless they are the local base and its Python."""

    base: str | None = None
    runtime: str | None = None


def version() -> str:
    """The images' version, which is the packages'."""
    (found,) = {package.version for package in own_packages() if package.name != "muster-contracts"}
    return found


def reference(name: str) -> str:
    """An image's name and tag."""
    return f"muster/{name}:{version()}"


def build(bases: Bases, *, fresh_base: bool = False) -> None:
    """Build every image, unless no input has changed since the last build.

    Raises BuildFailed.
    """
    started = time.monotonic()
    inputs = _inputs(bases)
    if not fresh_base and _is_built(inputs):
        print(f"{LOCK.relative_to(ROOT)}: nothing has changed")
        return
    install_missing()
    LOCK.unlink(missing_ok=True)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    built = {name: _build(name, bases, fresh_base=fresh_base and name == NAMES[0]) for name in NAMES}
    _write_lock(inputs, built)
    for name, archived in built.items():
        print(f"{reference(name)}: {archived.size / 1e6:.0f} MB, {archived.digest}")
    print(f"{LOCK.relative_to(ROOT)} after {time.monotonic() - started:.0f} s")


def _build(name: str, bases: Bases, *, fresh_base: bool) -> Archived:
    print(f"building {reference(name)}", file=sys.stderr)
    built = image(name, bases, fresh_base=fresh_base)
    archived = write_archive(built, reference(name), OUTPUT / f"{name}.tar")
    write_sboms(name, archived, OUTPUT)
    return archived


def image(name: str, bases: Bases, *, fresh_base: bool = False, cache: bool = True) -> str:
    """Build one image; return its ID in buildah's storage.

    The same inputs give the same bytes, with or without the cache.
    """
    epoch = source_date_epoch()
    base = bases.base or local_base(epoch, fresh=fresh_base)
    identifier = STORAGE / f"{name}.id"
    buildah(
        "build",
        *("--file", str(_DOCKERFILE), "--ignorefile", str(_IGNORED), "--target", name, "--tag", reference(name)),
        # buildah resolves a stage only by a name that it was given; any other name is an image.
        *("--build-arg", f"BASE_IMAGE={base}", "--build-arg", f"RUNTIME_IMAGE={bases.runtime or 'python'}"),
        *("--build-arg", f"VERSION={version()}", "--build-arg", f"REVISION={_revision()}"),
        *("--secret", f"id=ca,src={_AUTHORITIES}"),
        *("--timestamp", str(epoch), "--identity-label=false", "--iidfile", str(identifier)),
        *("--layers", *([] if cache else ["--no-cache"]), "--quiet", str(ROOT)),
    )
    return identifier.read_text("utf-8").strip().removeprefix("sha256:")


def source_date_epoch() -> int:
    """The time of every file and image, in seconds since 1970; the same for all versions, so that they share layers."""
    found = re.search(r"SOURCE_DATE_EPOCH=(\d+)", _DOCKERFILE.read_text("utf-8"))
    if found is None:
        raise BuildFailed("the Dockerfile sets no SOURCE_DATE_EPOCH")
    return int(found[1])


def files_of(*patterns: str) -> list[str]:
    """The repository's files that match Git's patterns: tracked, or not ignored."""
    listed = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns)
    return [name for name in sorted(listed.strip("\0").split("\0")) if (ROOT / name).is_file()]


def _inputs(bases: Bases) -> str:
    """A digest of everything that images are built from, except the local base."""
    found = hashlib.sha256(json.dumps([asdict(bases), _revision()]).encode())
    for name in files_of(*_SOURCES):
        found.update(f"\0{name}\0".encode() + (ROOT / name).read_bytes())
    return found.hexdigest()


def _is_built(inputs: str) -> bool:
    if not LOCK.exists():
        return False
    lock: dict[str, Any] = json.loads(LOCK.read_text("utf-8"))
    return lock["inputs"] == inputs and all((OUTPUT / f"{name}.tar").exists() for name in NAMES)


def _write_lock(inputs: str, built: dict[str, Archived]) -> None:
    images = {
        name: {
            "reference": reference(name),
            "digest": archived.digest,
            "id": archived.identifier,
            "size": archived.size,
            "archive": f"{name}.tar",
            "archive_sha256": archived.sha256,
        }
        for name, archived in built.items()
    }
    lock = {"inputs": inputs, "revision": _revision(), "images": images}
    LOCK.write_text(json.dumps(lock, indent=2) + "\n", "utf-8")


def _revision() -> str:
    """The last commit that changed the images' sources; `modified` if there are uncommitted changes."""
    if _git("status", "--porcelain", "--", *_SOURCES):
        return "modified"
    return _git("log", "-1", "--format=%H", "--", *_SOURCES).strip()


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
