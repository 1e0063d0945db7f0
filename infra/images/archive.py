"""Writes an image as one file: an OCI layout that is also a `docker save` archive, so that every tool accepts it.

`docker load` and containerd load it, and `skopeo copy oci-archive:…` pushes it without changing its digest.
"""

import gzip
import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.images.tools import STORAGE, buildah

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Archived:
    """An image in a file. `digest` is its manifest's, for pulling and signing; `identifier` is its config's.

    `size` is the unpacked size of its layers, in bytes.
    """

    file: Path
    digest: str
    identifier: str
    size: int
    sha256: str


def write_archive(image: str, reference: str, file: Path) -> Archived:
    """Write an image from buildah's storage to a file. The same image gives the same bytes."""
    with tempfile.TemporaryDirectory(dir=STORAGE / "tmp") as scratch:
        layout = Path(scratch) / "layout"
        buildah("push", "--quiet", "--format", "oci", image, f"oci:{layout}:{reference}")
        index: Document = json.loads((layout / "index.json").read_text("utf-8"))
        (described,) = index["manifests"]
        described["annotations"] = {
            "io.containerd.image.name": f"docker.io/{reference}",
            "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
        }
        manifest: Document = json.loads(_blob(layout, described["digest"]).read_text("utf-8"))
        layers = [_blob_name(layer["digest"]) for layer in manifest["layers"]]
        saved = [{"Config": _blob_name(manifest["config"]["digest"]), "RepoTags": [reference], "Layers": layers}]
        _write_tar(
            layout,
            {
                "oci-layout": (layout / "oci-layout").read_bytes(),
                "index.json": json.dumps(index, sort_keys=True).encode(),
                "manifest.json": json.dumps(saved).encode(),
            },
            part := file.with_suffix(".part"),
        )
        size = sum(_unpacked(layout / layer) for layer in layers)
        shutil.move(part, file)
    with file.open("rb") as whole:
        sha256 = hashlib.file_digest(whole, "sha256").hexdigest()
    return Archived(file, described["digest"], manifest["config"]["digest"], size, sha256)


def _write_tar(layout: Path, documents: Mapping[str, bytes], file: Path) -> None:
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in documents.items():
            tar.addfile(_entry(name, len(content)), io.BytesIO(content))
        for path in sorted((layout / "blobs" / "sha256").iterdir()):
            with path.open("rb") as blob:
                tar.addfile(_entry(f"blobs/sha256/{path.name}", path.stat().st_size), blob)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry


def _blob_name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _blob(layout: Path, digest: str) -> Path:
    return layout / _blob_name(digest)


def _unpacked(layer: Path) -> int:
    """The unpacked size of a compressed layer, in bytes."""
    with gzip.open(layer) as file:
        return sum(len(chunk) for chunk in iter(lambda: file.read(1 << 20), b""))
