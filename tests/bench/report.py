"""What a benchmark measured, as a table for people and as JSON for machines."""

import json
import platform
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Measurement:
    """One line: ours beside the limit, in `unit`; `aim` says what ratio or figure is wanted."""

    name: str
    ours: float
    limit: float | None
    unit: str
    aim: str
    cpu_seconds: float | None = None
    peak_mebibytes: float | None = None

    @property
    def ratio(self) -> float | None:
        """Ours over the limit."""
        return self.ours / self.limit if self.limit else None


@dataclass
class Span:
    """Wall and CPU seconds of a block, and the process's peak memory at its end."""

    wall: float = 0.0
    cpu: float = 0.0
    peak_mebibytes: float = 0.0


@contextmanager
def span() -> Iterator[Span]:
    """Measure a block in this process."""
    measured = Span()
    wall, cpu = time.perf_counter(), time.process_time()
    yield measured
    measured.wall = time.perf_counter() - wall
    measured.cpu = time.process_time() - cpu
    measured.peak_mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def show(measurements: Sequence[Measurement], output: Path | None) -> None:
    """Print the table, and write the JSON file where one is asked for."""
    table = Table("benchmark", "ours", "limit", "ratio", "unit", "aim", "CPU s", "peak MiB")
    for m in measurements:
        figures = (m.ours, m.limit, m.ratio)
        table.add_row(m.name, *map(_figure, figures), m.unit, m.aim, *map(_figure, (m.cpu_seconds, m.peak_mebibytes)))
    Console().print(table)
    if output is not None:
        lines = [{**asdict(m), "ratio": m.ratio} for m in measurements]
        machine = {"machine": platform.machine(), "python": platform.python_version()}
        output.write_text(json.dumps({"environment": machine, "measurements": lines}, indent=2) + "\n", "utf-8")


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
