"""Copies programs and their dependencies into a separate root, which has no shell, package manager, or compiler.

    python3 root.py python ROOT FOLDER                           Python and its libraries
    python3 root.py libraries ROOT FOLDER [--program PATH …]     system programs and their libraries
    … --less ROOT …                                              except files that these roots already have

Both also copy the libraries that the programs in FOLDER need.

It runs during an image build, as root on Debian. For each package from which it copies a file, the root also gets the
package's copyright file and its entry in /var/lib/dpkg/status.d, where scanners look for it.
"""

import argparse
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path

_STDLIB = Path("/usr/lib/python3.11")
_LOCALE = Path("/usr/lib/locale/C.utf8")

# Modules that no service needs: installers, GUIs, old build tools, and those that need terminal or database libraries.
_LEFT_OUT = re.compile(
    r"(__pycache__|config-3.*|distutils|ensurepip|idlelib|lib2to3|test|tkinter|turtle.*|venv|pydoc_data"
    r"|EXTERNALLY-MANAGED|sitecustomize\.py"
    r"|(_curses.*|_dbm|_gdbm|_sqlite3|_test.*|_tkinter|_xx.*|nis|ossaudiodev|readline|xx.*)\..*\.so)"
)

_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
_FILES = ("/etc/debian_version", "/etc/os-release", _AUTHORITIES, "/etc/ssl/openssl.cnf")
_LINKS = {
    "usr/lib/ssl/cert.pem": _AUTHORITIES,
    "usr/lib/ssl/certs": "/etc/ssl/certs",
    "usr/lib/ssl/openssl.cnf": "/etc/ssl/openssl.cnf",
}
_WRITTEN = (
    ("etc/passwd", "root:x:0:0:root:/:/sbin/nologin\nmuster:x:65532:65532:Muster:/tmp:/sbin/nologin\n"),
    ("etc/group", "root:x:0:\nmuster:x:65532:\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
)


class Root:
    """The root being filled; `copied` has the real paths of the system files in it."""

    def __init__(self, folder: Path, less: Sequence[Path]) -> None:
        self._folder = folder
        self._less = less
        self.copied: set[Path] = set()

    def copy(self, path: Path) -> None:
        """Copy a file; for a symbolic link, also its target."""
        real = Path(os.path.realpath(path.parent)) / path.name
        if real in self.copied or any(os.path.lexists(_within(other, real)) for other in self._less):
            return
        self.copied.add(real)
        shutil.copy2(real, self._place(str(real)), follow_symlinks=False)
        if real.is_symlink():
            self.copy(real.parent / real.readlink())

    def write(self, name: str, text: str) -> None:
        self._place(name).write_text(text, "utf-8")

    def link(self, name: str, to: str) -> None:
        """Create a symbolic link."""
        self._place(name).symlink_to(to)

    def folder(self, name: str, mode: int = 0o755) -> None:
        """Create an empty folder."""
        place = self._place(name)
        place.mkdir(exist_ok=True)
        place.chmod(mode)

    def describe_packages(self) -> None:
        """Add the dpkg entry and the copyright file of each package that a copied file belongs to."""
        for package in sorted(_packages(self.copied)):
            name = package.partition(":")[0]
            command = ["/usr/bin/dpkg-query", "--status", package]
            status = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            self.write(f"var/lib/dpkg/status.d/{name}", status)
            self.copy(Path(f"/usr/share/doc/{name}/copyright"))

    def _place(self, name: str) -> Path:
        place = self._folder / name.removeprefix("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        return place


def fill_with_python(root: Root, tree: Path) -> None:
    """Copy Python and its libraries, the trusted certificate authorities, and a few system files."""
    for name in ("bin", "lib", "lib64", "sbin"):
        if Path(f"/{name}").is_symlink():
            root.link(name, f"usr/{name}")
            root.folder(f"usr/{name}")
    root.folder("tmp", 0o1777)
    python = [Path("/usr/bin/python3.11"), *_files(_STDLIB)]
    for path in (*python, *_files(_LOCALE), *map(Path, _FILES), *_libraries([*python, *_files(tree)])):
        root.copy(path)
    root.link("usr/bin/python3", "python3.11")
    for name, to in _LINKS.items():
        root.link(name, to)
    for name, text in _WRITTEN:
        root.write(name, text)


def fill_with_libraries(root: Root, folder: Path, programs: Iterable[Path]) -> None:
    """Copy system programs, and the libraries that these and the programs in a folder need."""
    for path in (*programs, *_libraries([*programs, *_files(folder)])):
        root.copy(path)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if _LEFT_OUT.fullmatch(path.name) and folder.is_relative_to(_STDLIB):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        else:
            yield path


def _libraries(programs: Iterable[Path]) -> list[Path]:
    """The system libraries that programs and libraries need, as the loader finds them."""
    binaries = sorted({str(path.resolve()) for path in programs if path.is_file() and _is_binary(path)})
    # ldd fails if one of them is statically linked.
    listed = subprocess.run(["/usr/bin/ldd", *binaries], check=False, capture_output=True, text=True).stdout
    found = {Path(path) for path in re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", listed, re.MULTILINE)}
    return sorted(path for path in found if str(path).startswith(("/lib", "/usr/lib")))


def _is_binary(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _packages(files: Set[Path]) -> set[str]:
    """The packages that the files belong to. dpkg lists some under their paths from before /lib and /bin were links."""
    names = [str(path) for path in files]
    older = [name.removeprefix("/usr") for name in names if name.startswith("/usr/")]
    command = ["/usr/bin/dpkg-query", "--search", *sorted({*names, *older})]
    listed = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    owners = (line.rpartition(": ")[0] for line in listed.splitlines() if not line.startswith("diversion"))
    made_at_installation = {"ca-certificates"} if Path(_AUTHORITIES) in files else set()
    return {package for owner in owners for package in owner.split(", ")} | made_at_installation


def _within(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _main() -> None:
    parser = argparse.ArgumentParser(description="Copy programs and their dependencies into a separate root.")
    parser.add_argument("what", choices=["python", "libraries"])
    parser.add_argument("root", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--program", nargs="+", type=Path, default=[])
    parser.add_argument("--less", nargs="+", type=Path, default=[])
    arguments = parser.parse_args()
    root = Root(arguments.root, arguments.less)
    if arguments.what == "python":
        fill_with_python(root, arguments.folder)
    else:
        fill_with_libraries(root, arguments.folder, arguments.program)
    root.describe_packages()


if __name__ == "__main__":
    _main()
