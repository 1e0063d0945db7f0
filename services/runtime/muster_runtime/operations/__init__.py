"""The operators' routes, the same in every service: parked streams and deadlines, positions, gaps, the epoch."""

from collections.abc import Sequence

from fastapi import APIRouter

from muster_runtime.database.transactions import Database
from muster_runtime.messaging.subscriptions import Subscriptions
from muster_runtime.operations.deadlines import deadlines_router
from muster_runtime.operations.parked import parked_router
from muster_runtime.operations.streams import streams_router
from muster_runtime.service import Service


def operations_routers(service: Service, subscriptions: Subscriptions, database: Database) -> Sequence[APIRouter]:
    """All of the operators' routes. `database` is the worker role's."""
    return [
        parked_router(service.name, subscriptions, database),
        deadlines_router(service, database),
        streams_router(service.name, subscriptions, database),
    ]
