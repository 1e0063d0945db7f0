"""Questions about the past: what held at an instant, and what was known of it."""

from dataclasses import dataclass
from datetime import UTC, datetime

from muster_runtime.errors import InvalidInput

PROGRAM_START = datetime(2025, 8, 6, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class AsOf:
    """What held at the instant `at`, by what was recorded until `recorded_at`."""

    at: datetime
    recorded_at: datetime

    @classmethod
    def of(cls, at: datetime | None, recorded_at: datetime | None, now: datetime) -> "AsOf | None":
        """The instants that a request names; None if it names none, and asks for the present.

        By default, what is known now counts, and what held when it was recorded. Raises InvalidInput.
        """
        for field, instant in (("at", at), ("recorded_at", recorded_at)):
            if instant is not None and instant < PROGRAM_START:
                rule = f"must not be before the start of the program, {PROGRAM_START.isoformat()}"
                raise InvalidInput(field, instant.isoformat(), rule)
            if instant is not None and instant > now:
                raise InvalidInput(field, instant.isoformat(), f"must not be in the future: now is {now.isoformat()}")
        if at is None and recorded_at is None:
            return None
        return cls(at or recorded_at or now, recorded_at or now)

    @property
    def version_at(self) -> datetime:
        """The instant whose versions count: what was recorded later than either instant does not."""
        return min(self.at, self.recorded_at)
