"""Looks for secrets in the repository's files. What only looks like one is in the baseline.

    python -m infra.supply_chain.find_secrets [FOLDER] [--baseline FILE] [--update]

An entry of the baseline that nothing matches any more is a fault as well: it would hide what comes later. Before you
`--update` the baseline, make sure that what it adds is an example, the name of a setting, or a digest.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detect_secrets.core import baseline
from detect_secrets.core.potential_secret import PotentialSecret
from detect_secrets.core.secrets_collection import SecretsCollection

from infra.supply_chain.packages import ROOT


def scan(folder: Path) -> SecretsCollection:
    """What looks like a secret in a folder's files, as the loaded baseline's settings say."""
    found = SecretsCollection(root=str(folder))
    found.scan_files(*(name for name in _files(folder) if (folder / name).is_file()))
    return found


def _files(folder: Path) -> Iterable[str]:
    """The files of a folder; of a repository, those that Git knows or would add."""
    if not (folder / ".git").exists():
        return [str(path.relative_to(folder)) for path in folder.rglob("*")]
    command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")


def faults(found: SecretsCollection, known: SecretsCollection) -> list[str]:
    """What was found and is not in the baseline, and what is in the baseline and was not found."""
    every = {secret for _, secret in found}
    expected = {secret for _, secret in known}
    return [
        *(f"{each.filename}:{each.line_number}: {each.type}" for each in sorted(every - expected, key=_place)),
        *(
            f"{each.filename}: the baseline's {each.type} is gone; remove its entry"
            for each in sorted(expected - every, key=_place)
        ),
    ]


def _place(secret: PotentialSecret) -> tuple[str, int, str]:
    return secret.filename, secret.line_number, secret.secret_hash


def _relative(found: SecretsCollection, folder: Path) -> SecretsCollection:
    """The same, with each file named from the folder, as the baseline names it."""
    relative = SecretsCollection()
    for name, secret in found:
        secret.filename = str(Path(secret.filename).relative_to(folder))
        relative[name].add(secret)
    return relative


def _main() -> int:
    parser = argparse.ArgumentParser(description="Look for secrets in the repository's files.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT)
    parser.add_argument("--baseline", type=Path, default=Path(__file__).with_name("secrets.baseline.json"))
    parser.add_argument("--update", action="store_true", help="write what was found to the baseline")
    arguments = parser.parse_args()
    data: dict[str, Any] = json.loads(arguments.baseline.read_text("utf-8"))
    known = baseline.load(data, str(arguments.baseline))
    found = _relative(scan(arguments.folder), arguments.folder)
    if arguments.update:
        written = baseline.format_for_output(found, is_slim_mode=True)
        for each in written["filters_used"]:  # it notes where the baseline is on this machine
            if "filename" in each:
                each["filename"] = arguments.baseline.name
        arguments.baseline.write_text(json.dumps(written, indent=2) + "\n", "utf-8")
        known = found
    if wrong := faults(found, known):
        print(*wrong, sep="\n", file=sys.stderr)
        return 1
    print(f"no secret in the files; {len(list(known))} places only look like one")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
