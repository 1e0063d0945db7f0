"""What was found of an installation: one line each, and what to do about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How serious a finding is. What has failed keeps a service from its work."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """What a check found of a service, or, without a `service`, of the whole installation; `remedy` says what to do."""

    service: str
    check: str
    status: Status
    found: str
    remedy: str = ""


Findings = Sequence[Finding]


@dataclass(frozen=True)
class Check:
    """One check of a service: makes its findings."""

    service: str
    name: str

    def ok(self, found: str) -> Finding:
        """It is as it must be."""
        return Finding(self.service, self.name, Status.OK, found)

    def warning(self, found: str, remedy: str) -> Finding:
        """It works, and not as well as it should."""
        return Finding(self.service, self.name, Status.WARNING, found, remedy)

    def failed(self, found: str, remedy: str) -> Finding:
        """It does not work."""
        return Finding(self.service, self.name, Status.FAILED, found, remedy)
