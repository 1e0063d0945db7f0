"""The routes of entitlements: decode and delegate."""

from muster_entitlements.api import files, pools, seats

ROUTERS = [pools.router, seats.router, files.router]
