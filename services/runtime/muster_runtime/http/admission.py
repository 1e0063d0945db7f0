"""What a process takes on at once, and when it last had no room."""

import time

from muster_runtime.observability.telemetry import HTTP_REFUSED
from muster_runtime.slots import Slots

# For so long after a refusal the process says that it is full.
SATURATED_SECONDS = 10.0


class Admission:
    """What a process takes on at once: requests, and bytes of their bodies in memory; shared by tenants."""

    def __init__(self, service: str, requests: int, body_bytes: int) -> None:
        self.requests = Slots(requests, "places for requests")
        self.body_bytes = Slots(body_bytes, "bytes for request bodies")
        self._service = service
        self._full_at = -SATURATED_SECONDS

    @property
    def reasons(self) -> list[str]:
        """Why the process is not ready: a moment ago it refused a request because all its places were taken."""
        if time.monotonic() >= self._full_at + SATURATED_SECONDS:
            return []
        return [f"requests are refused: all {self.requests.total} places are taken"]

    def note_refused(self) -> None:
        """Count a refusal, and remember it where the process itself is full, not one tenant's share."""
        HTTP_REFUSED.labels(self._service).inc()
        if self.requests.is_full:
            self._full_at = time.monotonic()
