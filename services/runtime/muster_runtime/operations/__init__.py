"""The operators' routes, the same in every service: parked streams and deadlines, positions, gaps, the epoch."""

from collections.abc import Sequence
from functools import cache

from fastapi import APIRouter

from muster_runtime.operations.deadlines import deadlines_router
from muster_runtime.operations.parked import parked_router
from muster_runtime.operations.streams import streams_router


@cache
def operations_routers(service: str) -> Sequence[APIRouter]:
    """All of the operators' routes of a service. The application's state has its subscriptions."""
    return parked_router(service), deadlines_router(service), streams_router(service)
