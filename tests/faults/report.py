"""Writes what was measured into docs/faults.md, between its markers: `python -m tests.faults.report FINDINGS`."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "faults.md"


@dataclass(frozen=True)
class Run:
    """The results of a long run."""

    seed: int
    kills: Mapping[str, int]
    left: int
    minutes: float
    agencies: int
    commands: int
    events: int
    repeated: int
    deliveries: int
    restarts: int
    differences: Sequence[str]


def write_run(run: Run) -> None:
    """Put a long run's report into the document."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(run.kills.items()))
    rows = {
        "seed": run.seed,
        "kills": f"{sum(run.kills.values())} ({kinds})",
        "members that joined a group and left it at SIGTERM": run.left,
        "minutes": run.minutes,
        "agencies": run.agencies,
        "commands answered": f"{run.commands:,}",
        "events": f"{run.events:,}",
        "events repeated on the topics": f"{run.repeated:,}",
        "e-mails and webhooks delivered": f"{run.deliveries:,}",
        "services that ended by themselves and were started again": run.restarts,
        "differences": len(run.differences),
    }
    table = [f"| {name} | {value} |" for name, value in rows.items()]
    _replace("long run", ["| the long run | |", "| --- | --- |", *table, *(f"\n- {d}" for d in run.differences)])


def write_findings(findings: Iterable[Mapping[str, object]]) -> None:
    """Put the tests' measurements into the document, in the order of the faults' numbers."""
    rows = sorted((str(finding["test"]), finding) for finding in findings)
    table = [
        f"| {test.removeprefix('test_').partition('_')[0]} | {finding['recovery_seconds']} | {finding['seen']} |"
        for test, finding in rows
    ]
    _replace("measured", ["| fault | recovery, s | what was seen |", "| --- | --- | --- |", *table])


def _replace(name: str, lines: Sequence[str]) -> None:
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = DOCUMENT.read_text("utf-8").partition(begin)
    _, _, after = rest.partition(end)
    DOCUMENT.write_text("\n".join([before + begin, *lines, end]) + after, "utf-8")


if __name__ == "__main__":
    write_findings(map(json.loads, Path(sys.argv[1]).read_text("utf-8").splitlines()))
