"""The scopes and the parameter types of the routes."""

import re
from datetime import date
from typing import Annotated

from fastapi import Depends, Path, Query
from pydantic import AfterValidator, BeforeValidator

from muster_entitlements.domain.as_of import AsOf
from muster_entitlements.domain.days import in_range
from muster_entitlements.domain.people import Directory
from muster_runtime.http.application import RuntimeDep, WrittenInstant, requires, requires_program

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

# A decision that needs a second person is made within this many days, or not at all.
APPROVAL_DAYS = 14

SeatId = Annotated[str, Path(pattern=r"^seat_[0-9a-f]{32}$")]
SubjectReference = Annotated[str, Path(pattern=r"^sub_[0-9a-f]{32}$")]
WindowId = Annotated[str, Path(pattern=r"^win_[0-9a-f]{32}$")]
OperationId = Annotated[str, Path(pattern=r"^bat_[0-9a-f]{32}$")]


def _written(value: object) -> object:
    """Refuse a number, which pydantic would read as seconds or milliseconds since 1970. Raises ValueError."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        return value
    raise ValueError("must be a day such as 2025-08-06")


WrittenDay = Annotated[date, BeforeValidator(_written), AfterValidator(in_range)]

At = Annotated[WrittenInstant | None, Query(description="What was true at this past instant. Default: now.")]
RecordedAt = Annotated[WrittenInstant | None, Query(description="What was known at this past instant. Default: now.")]


async def _as_of(runtime: RuntimeDep, at: At = None, recorded_at: RecordedAt = None) -> AsOf | None:
    return AsOf.of(at, recorded_at, runtime.clock.now())


async def _recorded(runtime: RuntimeDep, recorded_at: RecordedAt = None) -> AsOf | None:
    return AsOf.of(None, recorded_at, runtime.clock.now())


async def _past(runtime: RuntimeDep, at: At = None) -> AsOf | None:
    return AsOf.of(at, None, runtime.clock.now())


# The instants that a request names; None asks about the present. Facts that can be corrected have two, others one.
AsOfDep = Annotated[AsOf | None, Depends(_as_of)]
RecordedAtDep = Annotated[AsOf | None, Depends(_recorded)]
AtDep = Annotated[AsOf | None, Depends(_past)]


async def _directory(runtime: RuntimeDep) -> Directory:
    directory = runtime.service.state["directory"]
    assert isinstance(directory, Directory)
    return directory


# Turns the addresses of a request into subject references.
DirectoryDep = Annotated[Directory, Depends(_directory)]
