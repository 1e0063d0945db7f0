"""Writes the bundle: one file that installs Muster where nothing can be pulled."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from infra.images.build import OUTPUT, files_of, version
from infra.supply_chain.packages import ROOT

# The images that an installation needs. The test servers are only for tests.
_NAMES = ("services", "operator")

_CHART = ROOT / "infra" / "chart" / "muster"
_README = Path(__file__).with_name("BUNDLE.md")

# Every page, and what the pages for an operator lead to. The bundle's README.md takes the place of the repository's.
_PAGES = ("*.md", "docs", "infra/alerts", "infra/chart", "infra/local/muster_local/data/agencies.tsv")
_LEFT_OUT = (":!README.md", ":!infra/images/BUNDLE.md")


def bundle() -> Path:
    """Write build/muster-VERSION.tar: images, SBOMs, chart, pages, and checksums. Same input, same bytes."""
    name = f"muster-{version()}"
    files = pages() | dict(_files())
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {path}\n" for path, content in sorted(files.items()))
    files["SHA256SUMS"] = sums.encode()
    file = ROOT / "build" / f"{name}.tar"
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for path, content in sorted(files.items()):
            _add(tar, f"{name}/{path}", content)
    print(
        f"{file.relative_to(ROOT)}: {file.stat().st_size / 1e6:.0f} MB, {hashlib.sha256(file.read_bytes()).hexdigest()}"
    )
    return file


def pages() -> dict[str, bytes]:
    """What there is to read, and the chart, by the paths that the pages' links and commands have."""
    found = {name: (ROOT / name).read_bytes() for name in files_of(*_PAGES, *_LEFT_OUT)}
    return found | {"README.md": _README.read_text("utf-8").replace("VERSION", version()).encode()}


def _files() -> Iterator[tuple[str, bytes]]:
    yield "LICENSE", (ROOT / "LICENSE").read_bytes()
    yield "images/images.lock", (OUTPUT / "images.lock").read_bytes()
    for name in _NAMES:
        yield f"images/{name}.tar", (OUTPUT / f"{name}.tar").read_bytes()
        for kind in ("cdx", "spdx"):
            yield f"sbom/{name}.{kind}.json", (OUTPUT / f"{name}.{kind}.json").read_bytes()
    if _CHART.exists():
        yield f"muster-{version()}.tgz", _packaged(_CHART)


def _packaged(chart: Path) -> bytes:
    """A chart, packaged like `helm package` does, but reproducibly."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(path for path in chart.rglob("*") if path.is_file()):
            _add(tar, f"muster/{path.relative_to(chart)}", path.read_bytes())
    return gzip.compress(plain.getvalue(), mtime=0)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
