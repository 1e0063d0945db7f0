"""What the tests of faults measure, kept in the file that FAULT_FINDINGS names, for docs/faults.md."""

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Findings:
    """One test's measurements: seconds from the fault's end to a state without differences, and what was seen."""

    test: str
    seed: int
    recovery_seconds: float | None = None
    seen: str = ""
    _since: float = field(default=0.0, repr=False)

    def fault_is_over(self) -> None:
        """The recovery begins: what was broken may be repaired now."""
        self._since = time.monotonic()

    def recovered(self, seen: str = "") -> None:
        """The recovery is complete. `seen` says in a few words what happened meanwhile."""
        self.recovery_seconds = round(time.monotonic() - self._since, 1)
        self.seen = seen
        print(f"recovered after {self.recovery_seconds} s; {seen}")
        if path := os.environ.get("FAULT_FINDINGS"):
            kept = {name: value for name, value in asdict(self).items() if not name.startswith("_")}
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(json.dumps(kept) + "\n")
