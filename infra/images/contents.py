"""Reads the contents of an image's archive, without running it or unpacking it to disk."""

import io
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name


@dataclass(frozen=True, slots=True)
class SystemPackage:
    """A Debian package with files in the image."""

    name: str
    version: str
    architecture: str


class Contents:
    """An image's configuration, and the files of its layers; no layer hides a file of another."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        with tarfile.open(archive) as tar:
            (saved,) = json.loads(_read(tar, "manifest.json"))
            self._layers: Sequence[str] = saved["Layers"]
            self.config: dict[str, Any] = json.loads(_read(tar, saved["Config"]))

    def entries(self) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
        """Each file, folder, and link, in the order of the layers, with its layer's archive to read it from."""
        with tarfile.open(self._archive) as tar:
            for name in self._layers:
                with tarfile.open(fileobj=tar.extractfile(name), mode="r:*") as layer:
                    for entry in layer:
                        yield entry, layer

    def packages(self) -> tuple[dict[str, str], list[SystemPackage]]:
        """The Python packages' versions by normalized name, and the Debian packages."""
        python: dict[str, str] = {}
        system: dict[str, SystemPackage] = {}
        for entry, layer in self.entries():
            if re.search(r"/site-packages/[^/]+\.dist-info/METADATA$", entry.name):
                said = message_from_bytes(_content(layer, entry))
                python[canonicalize_name(said["Name"])] = said["Version"]
            elif re.search(r"var/lib/dpkg/status\.d/[^/]+$", entry.name) and entry.isfile():
                said = message_from_bytes(_content(layer, entry))
                system[said["Package"]] = SystemPackage(said["Package"], said["Version"], said["Architecture"])
        return python, [system[name] for name in sorted(system)]


def _content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    return (tar.extractfile(entry) or io.BytesIO()).read()


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    return _content(tar, tar.getmember(name))
