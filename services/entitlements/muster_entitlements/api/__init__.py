"""The routes of entitlements: decode and delegate."""

from muster_entitlements.api import checks, files, pools, seats

ROUTERS = [pools.router, seats.router, checks.router, files.router]
