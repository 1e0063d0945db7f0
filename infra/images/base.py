"""Builds the local base image, for when none is pulled, from Debian's packages with mmdebstrap."""

import os

from infra.images.tools import STORAGE, buildah, run

_SUITE = "bookworm"
_PACKAGES = ("ca-certificates", "python3-venv")

NAME = f"localhost/muster/debian:{_SUITE}"


def local_base(epoch: int, *, fresh: bool) -> str:
    """The base's name; builds it if it is missing, or if `fresh`."""
    if not fresh and buildah("images", "--quiet", "--filter", f"reference={NAME}"):
        return NAME
    archive = STORAGE / "base.tar"
    include = f"--include={','.join(_PACKAGES)}"
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    run(["mmdebstrap", "--quiet", "--variant=apt", include, _SUITE, str(archive)], environment)
    container = buildah("from", "scratch")
    try:
        buildah("add", "--quiet", container, str(archive), "/")
        buildah("config", "--cmd", "/bin/sh", container)
        buildah("commit", "--quiet", "--timestamp", str(epoch), container, NAME)
    finally:
        buildah("rm", container)
        archive.unlink(missing_ok=True)
    return NAME
