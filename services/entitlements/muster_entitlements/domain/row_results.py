"""The results of a chunk's rows: totals, and one CSV line per row, which names people only by reference."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from muster_runtime.errors import InvalidInput

# A row of a file: its first line, and its fields; None if it does not have as many columns as the header.
Row = tuple[int, list[str] | None]

MISSHAPEN = "the row must have as many columns as the header"

RESULTS_HEADER = b"line,subject,outcome,reason\n"


@dataclass(slots=True)
class Report:
    """The results of some rows. With a `stop_reason`, the rest of the file is not read."""

    done: int = 0
    unchanged: int = 0
    refused: int = 0
    stop_reason: str | None = None
    _results: list[str] = field(default_factory=list)

    def add(self, line: int, subject: str, outcome: str) -> None:
        """Add a row that made its change."""
        self.done += 1
        self._results.append(f"{line},{subject},{outcome},\n")

    def keep(self, line: int, subject: str, outcome: str) -> None:
        """Add a row that changed nothing."""
        self.unchanged += 1
        self._results.append(f"{line},{subject},{outcome},\n")

    def refuse(self, line: int, subject: str, reason: str) -> None:
        """Add a row that was refused."""
        self.refused += 1
        self._results.append(f'{line},{subject},refused,"{reason}"\n')

    @property
    def rows(self) -> int:
        """Rows read."""
        return len(self._results)

    @property
    def results(self) -> bytes:
        """A line of CSV for each row: line, subject, outcome and reason."""
        return "".join(self._results).encode()


def refuse_all(rows: Iterable[Row], reason: str) -> Report:
    """A report that refuses every row for one reason."""
    report = Report()
    for line, _ in rows:
        report.refuse(line, "", reason)
    return report


def rule_of(refusal: InvalidInput) -> str:
    """The field and the rule that it breaks, without the value, which may be an address."""
    return f"{refusal.field} {refusal.rule}"
