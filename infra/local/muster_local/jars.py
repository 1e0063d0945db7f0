"""Kafka's jars: listed in the package with their checksums, downloaded once into the user's cache folder."""

import fcntl
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jgo.maven import MavenContext
from rich.console import Console
from rich.progress import track

KAFKA_VERSION = "4.3.1"
_DOWNLOADS_AT_ONCE = 8


class ChecksumMismatch(Exception):
    """A downloaded jar's SHA-256 differs from the listed one."""


@dataclass(frozen=True)
class Jar:
    """A jar's Maven coordinates and expected SHA-256."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The jar's name in the cache."""
        return f"{self.artifact}-{self.version}.jar"


def listed_jars() -> list[Jar]:
    """The jars in the package's list."""
    text = files(__package__).joinpath(f"data/kafka-{KAFKA_VERSION}.jars").read_text("utf-8")
    rows = [line.replace(":", " ").split() for line in text.splitlines() if line and not line.startswith("#")]
    return [Jar(group, artifact, version, sha256) for group, artifact, version, sha256 in rows]


def cache_folder() -> Path:
    """The cache folder: `muster` in XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "muster"


def kafka_jars() -> list[Path]:
    """Every jar of the broker; downloads the missing ones. Concurrent callers share one download.

    Raises ChecksumMismatch.
    """
    folder = cache_folder() / f"kafka-{KAFKA_VERSION}"
    jars = listed_jars()
    if _missing(jars, folder):  # a folder that has them all may be read-only
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / ".lock"):
            _fetch(_missing(jars, folder), folder)
    return [folder / jar.file_name for jar in jars]


def _missing(jars: Sequence[Jar], folder: Path) -> list[Jar]:
    return [jar for jar in jars if not (folder / jar.file_name).exists()]


def _fetch(jars: Sequence[Jar], folder: Path) -> None:
    if not jars:
        return
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
        maven = MavenContext(repo_cache=Path(scratch), local_repos=[], timeout=60)
        with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
            fetched = pool.map(lambda jar: fetch_one(maven, jar, folder), jars)
            console = Console(file=sys.stderr)
            for _ in track(
                fetched,
                description=f"Downloading Kafka {KAFKA_VERSION}, once",
                total=len(jars),
                console=console,
                disable=not console.is_terminal,
            ):
                pass


def fetch_one(maven: MavenContext, jar: Jar, folder: Path) -> None:
    """Download a jar into a folder. It appears there only complete and verified.

    Raises ChecksumMismatch.
    """
    path = maven.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != jar.sha256:
        raise ChecksumMismatch(f"{jar.file_name} has SHA-256 {found} instead of {jar.sha256}")
    path.replace(folder / jar.file_name)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
