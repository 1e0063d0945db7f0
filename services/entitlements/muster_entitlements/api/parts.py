"""Shared parts of the routes: scopes, the directory, and parameter types."""

from typing import Annotated, cast

from fastapi import Depends, Path

from muster_entitlements.people import Directory
from muster_entitlements.settings import EntitlementsSettings
from muster_runtime.http.application import RuntimeDep, requires, requires_program

PREFIX = "/v1/agencies/{agency_id}"

READ = requires("entitlements:read")
WRITE = requires("entitlements:write")
# The program and the agency agree on the number of seats.
OPERATE = requires_program("entitlements:operate")

SeatId = Annotated[str, Path(pattern=r"^seat_[0-9a-f]{32}$")]
OperationId = Annotated[str, Path(pattern=r"^bat_[0-9a-f]{32}$")]


async def _directory(runtime: RuntimeDep) -> Directory:
    settings = cast("EntitlementsSettings", runtime.settings)
    return Directory(settings.subject_key.get_secret_value())


DirectoryDep = Annotated[Directory, Depends(_directory)]
