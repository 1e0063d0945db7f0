"""Installs and runs the programs that build images: Debian's buildah and mmdebstrap."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# buildah's storage; it can be deleted at any time.
STORAGE = Path("/var/cache/muster-images")

_PACKAGES = ("buildah", "mmdebstrap")


class BuildFailed(Exception):
    """An image build failed. The message says why, unless the program already printed it."""


def install_missing() -> None:
    """Install missing programs. Raises BuildFailed without root, or without apt-get."""
    missing = [name for name in _PACKAGES if shutil.which(name) is None]
    if os.geteuid() != 0:
        raise BuildFailed("building images needs root, to install the base's packages and to keep files' owners")
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise BuildFailed(f"{', '.join(missing)} must be installed")
    print(f"installing {', '.join(missing)}, once", file=sys.stderr)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], environment)
    run(["apt-get", "install", "-qq", "--yes", "--no-install-recommends", *missing], environment)


def run(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    """Run a program; return its output. Its stderr goes to ours. Raises BuildFailed if it fails."""
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise BuildFailed(f"{' '.join(command[:3])} … ended with status {done.returncode}\n{done.stdout[-2000:]}")
    return done.stdout


def buildah(command: str, *arguments: str) -> str:
    """Run buildah with its own storage. It builds in a chroot, because containers may not nest here."""
    STORAGE.mkdir(parents=True, exist_ok=True)
    where = ["--root", str(STORAGE / "storage"), "--runroot", "/run/muster-images", "--storage-driver", _driver()]
    # TMPDIR holds its scratch space and the builds' caches.
    environment = {**os.environ, "TMPDIR": str(STORAGE / "tmp"), "BUILDAH_ISOLATION": "chroot"}
    (STORAGE / "tmp").mkdir(exist_ok=True)
    return run(["buildah", *where, command, *arguments], environment).strip()


def _driver() -> str:
    """The storage driver: overlay, or vfs if the folder itself is on an overlay, which cannot be stacked."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    on = max((mount for mount in mounts if STORAGE.is_relative_to(mount[0])), key=lambda mount: len(mount[0]))
    return "vfs" if on[1] == "overlay" else "overlay"
