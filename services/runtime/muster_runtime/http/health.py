"""Liveness and readiness of the process."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog
from fastapi import APIRouter
from fastapi.responses import JSONResponse

from muster_runtime.http.admission import Admission

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Health:
    """The state of a process: `reasons` why it is not ready, and `warnings` about problems that do not stop it.

    `serving`: it answers requests, even if it is not ready because its commits, reading, or publishing must wait, or
    because it refuses those for which it has no slot. Ages are in seconds, the lag in records.
    """

    ready: bool
    serving: bool
    reasons: Sequence[str] = ()
    outbox_rows: int = 0
    outbox_oldest_seconds: float = 0.0
    lag: int = 0
    parked: int = 0
    warnings: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """The body of /health/ready and /health/serving."""
        return {
            "ready": self.ready,
            "reasons": list(self.reasons),
            "outbox": {"rows": self.outbox_rows, "oldest_seconds": self.outbox_oldest_seconds},
            "lag": self.lag,
            "parked": self.parked,
            "warnings": list(self.warnings),
        }


HealthCheck = Callable[[], Awaitable[Health]]


def health_router(check: HealthCheck, admission: Admission) -> APIRouter:
    """The health routes, which need no token.

    The only agency data they show is the ID of an agency whose stream holds up the process.
    """
    router = APIRouter(prefix="/health", include_in_schema=False)
    looking: asyncio.Task[Health] | None = None

    async def look() -> Health:
        """Run one check at a time, shared by all concurrent callers, so that frequent probes cost no more."""
        nonlocal looking
        if looking is None or looking.done():
            looking = asyncio.ensure_future(check())
        return await asyncio.shield(looking)

    @router.get("/live")
    async def live() -> JSONResponse:
        return JSONResponse({"live": True})

    async def admitted() -> Health:
        """The process's health, in which requests that fill its slots count, too."""
        try:
            health = await look()
        except Exception as error:
            log.warning("health_check_failed", exc_info=True)
            return Health(ready=False, serving=False, reasons=[f"the health check failed: {type(error).__name__}"])
        if saturated := admission.reasons:
            return replace(health, ready=False, reasons=[*health.reasons, *saturated])
        return health

    @router.get("/ready")
    async def ready() -> JSONResponse:
        health = await admitted()
        return JSONResponse(health.as_json(), status_code=200 if health.ready else 503)

    @router.get("/serving")
    async def serving() -> JSONResponse:
        health = await admitted()
        return JSONResponse(health.as_json(), status_code=200 if health.serving else 503)

    return router
