"""Questions about the past: what was true at one instant, as far as it was known at another."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from muster_runtime.errors import InvalidInput, rfc3339

# The day on which GSA announced the program; enrollment accepts no start before it.
PROGRAM_START = datetime(2025, 8, 6, tzinfo=UTC)


def require_past(field: str, instant: datetime, now: datetime) -> None:
    """Raise InvalidInput unless an instant is between the start of the program and now."""
    if instant < PROGRAM_START:
        rule = f"must not be before the start of the program, {rfc3339(PROGRAM_START)}"
        raise InvalidInput(field, instant, rule)
    if instant > now:
        raise InvalidInput(field, instant, f"must not be in the future: now is {rfc3339(now)}")


@dataclass(frozen=True, slots=True)
class AsOf:
    """What was true at `at`, according to what had been recorded by `recorded_at`."""

    at: datetime
    recorded_at: datetime
    earliest: Literal["at", "recorded_at"]
    """Which of the instants that the request names is the earlier one."""

    @classmethod
    def of(cls, at: datetime | None, recorded_at: datetime | None, now: datetime) -> "AsOf | None":
        """The instants that a request names; None if it names none, and so asks about the present.

        `recorded_at` defaults to now, and `at` to `recorded_at`. Raises InvalidInput.
        """
        for field, instant in (("at", at), ("recorded_at", recorded_at)):
            if instant is not None:
                require_past(field, instant, now)
        if at is None and recorded_at is None:
            return None
        known = recorded_at or now
        return cls(at or known, known, "at" if at is not None and at <= known else "recorded_at")

    @property
    def version_at(self) -> datetime:
        """The instant whose versions are read: nothing that was recorded after either instant counts."""
        return min(self.at, self.recorded_at)

    def require_kept(self, purged_before: datetime | None) -> None:
        """Raise InvalidInput if the versions may have been deleted: those that ended by `purged_before`."""
        if purged_before is not None and self.version_at < purged_before:
            rule = f"must not be before {rfc3339(purged_before)}: what was recorded before is deleted"
            raise InvalidInput(self.earliest, self.version_at, rule)
