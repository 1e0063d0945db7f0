"""Write the generated documents, or with --check say which of them differ from the models."""

import argparse
import sys
from pathlib import Path

from muster_contracts.generate import documents

# Folders in which every file is generated: one that is there and no longer made is stale.
_WHOLLY_GENERATED = ("schemas", "examples")


def main() -> int:
    """The command; its status is 1 when --check finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m muster_contracts.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file differs")
    parser.add_argument("--directory", type=Path, default=Path(__file__).parents[2], help="the folder contracts/")
    options = parser.parse_args()
    return check(options.directory) if options.check else write(options.directory)


def check(directory: Path) -> int:
    """Name every file that differs from what the models say."""
    wanted = documents()
    drifted = [path for path, text in wanted.items() if _read(directory / path) != text]
    stale = _stale(directory, wanted)
    for path in drifted:
        sys.stderr.write(f"contracts/{path} differs from the models\n")
    for path in stale:
        sys.stderr.write(f"contracts/{path} is of no model\n")
    if drifted or stale:
        sys.stderr.write("Run python -m muster_contracts.generate and commit what it writes.\n")
        return 1
    return 0


def write(directory: Path) -> int:
    """Write every document and remove what is stale."""
    wanted = documents()
    for path in _stale(directory, wanted):
        (directory / path).unlink()
    for path, text in wanted.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text, encoding="utf-8")
    sys.stdout.write(f"{len(wanted)} documents\n")
    return 0


def _stale(directory: Path, wanted: dict[str, str]) -> list[str]:
    present = (
        path.relative_to(directory).as_posix()
        for folder in _WHOLLY_GENERATED
        for path in sorted((directory / folder).rglob("*.json"))
    )
    return [path for path in present if path not in wanted]


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
