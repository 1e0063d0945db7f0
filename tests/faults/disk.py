"""A disk small enough to be filled: a file system in memory, which needs the right to mount one."""

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self


class SmallDisk:
    """A file system of this many megabytes, mounted at a folder. Use it as a context."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        self._megabytes = megabytes

    def __enter__(self) -> Self:
        self.folder.mkdir()
        _run("mount", "-t", "tmpfs", "-o", f"size={self._megabytes}m,mode=0755", "muster-faults", str(self.folder))
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        _run("umount", "--lazy", str(self.folder))

    def fill(self) -> None:
        """Fill it to the last byte."""
        with self._ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(65536))
            except OSError:
                pass

    def empty(self) -> None:
        """Free the space again."""
        self._ballast.unlink()

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
