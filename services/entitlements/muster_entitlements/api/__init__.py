"""The routes of entitlements: decode and delegate."""

from collections.abc import Sequence

from fastapi import APIRouter

from muster_entitlements.api import (
    adoption,
    catalogs,
    checks,
    files,
    grants,
    parked_usage,
    people,
    pools,
    seat_lists,
    seats,
    usage,
    windows,
)
from muster_entitlements.domain.people import Directory


def make_routers(directory: Directory) -> Sequence[APIRouter]:
    """All routes; those that programs ask most come first, because a request is compared with each in turn."""
    return [
        checks.make_router(directory),
        usage.make_router(directory),
        catalogs.router,
        pools.router,
        windows.router,
        people.make_router(directory),
        seat_lists.make_router(directory),
        seats.router,
        grants.make_router(directory),
        adoption.router,
        parked_usage.router,
        files.router,
    ]
