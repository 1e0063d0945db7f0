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

# The routes that programs call most come first, because a request is compared with each route in turn.
ROUTERS: Sequence[APIRouter] = [
    checks.router,
    usage.router,
    catalogs.router,
    pools.router,
    windows.router,
    people.router,
    seat_lists.router,
    seats.router,
    grants.router,
    adoption.router,
    parked_usage.router,
    files.router,
]
