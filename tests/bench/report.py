"""What a benchmark measured: a table for people, JSON for machines, and a page with plots."""

import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from tests.bench.plot import Line, draw

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

HEADER = ("benchmark", "ours", "limit", "ratio", "unit", "aim", "CPU s", "limit's CPU s", "peak MiB")


@dataclass(frozen=True)
class Measurement:
    """One line: ours and the limit, in `unit`; `aim` says which ratio or figure is the goal.

    `points` are ours for each value of what `over` names: a line in the benchmark's plot.
    """

    name: str
    ours: float
    limit: float | None
    unit: str
    aim: str
    cpu_seconds: float | None = None
    limit_cpu_seconds: float | None = None
    peak_mebibytes: float | None = None
    over: str = ""
    points: tuple[tuple[float, float], ...] = ()

    @property
    def ratio(self) -> float | None:
        """Ours divided by the limit."""
        return self.ours / self.limit if self.limit else None

    @property
    def cells(self) -> list[str]:
        """The line as text, in the order of HEADER."""
        resources = (self.cpu_seconds, self.limit_cpu_seconds, self.peak_mebibytes)
        figures = [_figure(value) for value in (self.ours, self.limit, self.ratio)]
        return [self.name, *figures, self.unit, self.aim, *map(_figure, resources)]


# The measurements of each benchmark, by its name.
Results = Mapping[str, Sequence[Measurement]]


def say(progress: str) -> None:
    """Report the benchmarks' progress."""
    print(progress, file=sys.stderr, flush=True)


def show(results: Results) -> None:
    """Print the table."""
    table = Table(*HEADER)
    for measurements in results.values():
        for measurement in measurements:
            table.add_row(*measurement.cells)
        table.add_section()
    Console(width=max(Console().width, 160)).print(table)


def write_json(results: Results, file: Path) -> None:
    """Write the figures and the machine that they were measured on."""
    lines = [
        {"benchmark": name, **asdict(m), "ratio": m.ratio}
        for name, measurements in results.items()
        for m in measurements
    ]
    file.write_text(json.dumps({"environment": _machine(), "measurements": lines}, indent=2) + "\n", "utf-8")


def write_page(results: Results, page: Path) -> None:
    """Write the figures between the page's markers, and the plots to a folder with its name beside it.

    The figures of a benchmark that was not measured stay as they are.
    """
    before, begin, rest = page.read_text("utf-8").partition(BEGIN)
    measured, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no lines {BEGIN} and {END}")
    plots = page.with_suffix("")
    plots.mkdir(exist_ok=True)
    sections = {section.partition("\n")[0]: section.strip() for section in measured.split("### ")[1:]}
    for name, measurements in results.items():
        rows = [HEADER, ["---"] * len(HEADER), *(m.cells for m in measurements)]
        parts = [f"{name}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)]
        for number, drawn in enumerate(_plots(measurements), start=1):
            file = plots / f"{name}-{number}.svg"
            file.write_text(drawn, "utf-8")
            parts.append(f"![{name}]({plots.name}/{file.name})")
        sections[name] = "\n\n".join(parts)
    machine = ", ".join(f"{name}: {value}" for name, value in _machine().items()) + "."
    figures = "\n\n".join([machine, *(f"### {section}" for section in sections.values())])
    page.write_text(f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}", "utf-8")


def _plots(measurements: Sequence[Measurement]) -> list[str]:
    """A plot for each unit of the varied measurements."""
    varied = [m for m in measurements if m.points]
    axes = dict.fromkeys((m.unit, m.over) for m in varied)
    return [
        draw([Line(m.name, m.points) for m in varied if (m.unit, m.over) == axis], x_title=axis[1], y_title=axis[0])
        for axis in axes
    ]


def _machine() -> dict[str, str]:
    return {
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "python": platform.python_version(),
    }


def _processor() -> str:
    """The processor's name according to Linux."""
    names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    return names[0] if names else "unknown"


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
