"""An operator's hands on a service: parked streams, positions, gaps, the epoch. The same routes in every service."""

from fastapi import APIRouter

from muster_runtime.applier import Applier
from muster_runtime.db import Database
from muster_runtime.operations.parked import parked_router
from muster_runtime.operations.streams import streams_router


def operations_router(service: str, applier: Applier, database: Database) -> APIRouter:
    """All routes of the operators; `database` is the worker role's."""
    router = APIRouter()
    router.include_router(parked_router(service, applier, database))
    router.include_router(streams_router(service, applier, database))
    return router
