"""Limits what a process accepts at once, and remembers when it was last full."""

import time

from muster_runtime.observability.telemetry import HTTP_REFUSED
from muster_runtime.slots import Slots

# How long after a refusal the process reports that it is full.
SATURATED_SECONDS = 10.0


class Admission:
    """Limits what a process accepts at once, shared by tenants: requests, and bytes of request bodies in memory."""

    def __init__(self, service: str, requests: int, body_bytes: int) -> None:
        self.requests = Slots(requests, "request slots")
        self.body_bytes = Slots(body_bytes, "bytes for request bodies")
        self._service = service
        self._full_at = -SATURATED_SECONDS

    @property
    def reasons(self) -> list[str]:
        """Why the process is not ready: it recently refused a request because all its slots were in use."""
        if time.monotonic() >= self._full_at + SATURATED_SECONDS:
            return []
        return [f"requests are refused: all {self.requests.total} request slots are in use"]

    def note_refused(self) -> None:
        """Count a refusal. Remember it if the process itself is full, not only one tenant's share."""
        HTTP_REFUSED.labels(self._service).inc()
        if self.requests.is_full:
            self._full_at = time.monotonic()
