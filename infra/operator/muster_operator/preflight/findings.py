"""A check's findings about an installation, each with a remedy."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How serious a finding is. FAILED keeps a service from working."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """What a check found about a service, or, without a `service`, about the whole installation."""

    service: str
    check: str
    status: Status
    found: str
    remedy: str = ""


Findings = Sequence[Finding]


@dataclass(frozen=True)
class Check:
    """One check of a service; creates its findings."""

    service: str
    name: str

    def ok(self, found: str) -> Finding:
        """A finding that all is well."""
        return Finding(self.service, self.name, Status.OK, found)

    def warning(self, found: str, remedy: str) -> Finding:
        """A finding that it works, but not as well as it should."""
        return Finding(self.service, self.name, Status.WARNING, found, remedy)

    def failed(self, found: str, remedy: str) -> Finding:
        """A finding that it does not work."""
        return Finding(self.service, self.name, Status.FAILED, found, remedy)
