"""The scopes and the parameter types of the routes."""

from typing import Annotated

from fastapi import Path

from muster_runtime.http.application import requires, requires_program

PREFIX = "/v1/agencies/{agency_id}"

LONGEST_SUBJECT = 300

READ = requires("entitlements:read")
# Systems that serve people of many agencies ask for all of them at once.
READ_ALL = requires_program("entitlements:read")
WRITE = requires("entitlements:write")
# Systems that report use do so for people of many agencies.
WRITE_ALL = requires_program("entitlements:write")
# The program and the agency agree on the number of seats.
OPERATE = requires_program("entitlements:operate")

SeatId = Annotated[str, Path(pattern=r"^seat_[0-9a-f]{32}$")]
WindowId = Annotated[str, Path(pattern=r"^win_[0-9a-f]{32}$")]
OperationId = Annotated[str, Path(pattern=r"^bat_[0-9a-f]{32}$")]
