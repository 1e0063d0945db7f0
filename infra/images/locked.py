"""Prints the part of requirements.lock, with hashes, that some of the repository's packages need.

    python locked.py [--of FOLDER …] [--name NAME …] [--except NAME …] [--less LOCK …]

It runs during an image build, in the lock's folder and with uv in its environment. uv determines which packages this
platform needs; their versions and hashes come only from the lock.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

_OWN = "muster-"


def entries(lock: str) -> dict[str, str]:
    """Each entry of a lock with its hashes, by the package's name."""
    found = re.findall(r"^[^\s#].*(?:\n[ \t]+.*)*", lock, re.MULTILINE)
    return {_name(entry): f"{entry}\n" for entry in found}


def declared(folders: Iterable[Path]) -> Iterator[str]:
    """The dependencies that the packages in the folders declare, except each other."""
    for folder in folders:
        project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
        yield from (each for each in project["dependencies"] if not each.startswith(_OWN))


def needed(requirements: Iterable[str], lock: Path) -> list[str]:
    """The names of all packages that the requirements need, resolved by uv."""
    resolved = subprocess.run(
        [
            *(sys.executable, "-m", "uv", "pip", "compile", "-", "--quiet", "--no-build"),
            *("--constraint", str(lock), "--no-header", "--no-annotate"),
        ],
        input="\n".join(requirements),
        text=True,
        check=True,
        stdout=subprocess.PIPE,
    )
    return sorted(entries(resolved.stdout))


def pick(names: Iterable[str], locked: Mapping[str, str]) -> str:
    """The entries of these names. Raises ValueError if the lock lacks one."""
    names = list(names)
    if unknown := sorted(set(names) - locked.keys()):
        raise ValueError(f"requirements.lock has no {', '.join(unknown)}: run `make lock`")
    return "".join(locked[name] for name in names)


def _name(entry: str) -> str:
    return re.split(r"[\[=<>~! ;]", entry, maxsplit=1)[0].lower().replace("_", "-").replace(".", "-")


def _main() -> None:
    parser = argparse.ArgumentParser(description="Print the part of the lock that some packages need.")
    parser.add_argument("--of", nargs="+", type=Path, default=[], metavar="FOLDER")
    parser.add_argument("--name", nargs="+", default=[])
    parser.add_argument("--except", nargs="+", default=[], dest="excepted", metavar="NAME")
    parser.add_argument("--less", nargs="+", type=Path, default=[], metavar="LOCK")
    arguments = parser.parse_args()
    lock = Path("requirements.lock")
    present = {name for other in arguments.less for name in entries(other.read_text("utf-8"))}
    left_out = present | set(arguments.excepted)
    names = needed([*declared(arguments.of), *arguments.name], lock)
    print(pick((name for name in names if name not in left_out), entries(lock.read_text("utf-8"))), end="")


if __name__ == "__main__":
    _main()
