"""The operators' routes, the same in every service: parked streams and deadlines, positions, gaps, the epoch."""

from fastapi import APIRouter

from muster_runtime.database.transactions import Database
from muster_runtime.http.problem_responses import COMMON
from muster_runtime.messaging.subscriptions import Subscriptions
from muster_runtime.operations.deadlines import deadlines_router
from muster_runtime.operations.parked import parked_router
from muster_runtime.operations.streams import streams_router
from muster_runtime.service import Service


def operations_router(service: Service, subscriptions: Subscriptions, database: Database) -> APIRouter:
    """All of the operators' routes. `database` is the worker role's."""
    router = APIRouter(responses=COMMON)
    router.include_router(parked_router(service.name, subscriptions, database))
    router.include_router(deadlines_router(service, database))
    router.include_router(streams_router(service.name, subscriptions, database))
    return router
