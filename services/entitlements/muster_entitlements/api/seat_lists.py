"""The routes that show seats: who holds one, who held it before, and how many there are."""

from typing import Annotated

from fastapi import APIRouter, Query

from muster_contracts import AgencyId
from muster_entitlements.api.parameters import LONGEST_SUBJECT, PREFIX, READ, AtDep, DirectoryDep, SeatId, WrittenDay
from muster_entitlements.domain.people import Directory, normalize_email
from muster_entitlements.domain.seats import SeatState
from muster_entitlements.domain.units import normalize_unit, unit_key
from muster_entitlements.errors import SeatUnknown
from muster_entitlements.queries import seats as queries
from muster_entitlements.queries.seats import SeatSearch
from muster_entitlements.replies import SeatReply
from muster_entitlements.replies.seats import SeatCountsReply, SeatVersionReply
from muster_runtime.errors import InvalidInput, NotFound
from muster_runtime.http.application import PageDep, ReaderDep
from muster_runtime.http.problem_responses import COMMON, problem_responses
from muster_runtime.pagination import Page

_SUBJECT = Query(max_length=LONGEST_SUBJECT, description="An e-mail address or a subject reference.")


router = APIRouter(prefix=PREFIX, tags=["seats"], responses=COMMON)


@router.get("/seats", summary="List seats", dependencies=[READ])
async def list_seats(
    agency_id: AgencyId,
    reader: ReaderDep,
    page: PageDep,
    directory: DirectoryDep,
    as_of: AtDep,
    address: Annotated[
        str | None, Query(max_length=LONGEST_SUBJECT, description="Only the seats of the person with this address.")
    ] = None,
    subject: Annotated[str | None, _SUBJECT] = None,
    state: Annotated[SeatState | None, Query(description="Only seats in this state.")] = None,
    unused_since: Annotated[
        WrittenDay | None,
        Query(description="Only held seats that have not been used on or after this day (UTC)."),
    ] = None,
    unit: Annotated[str | None, Query(description="Only seats of this unit; case-insensitive.")] = None,
) -> Page[SeatReply]:
    """Lists the seats that match every filter, held and revoked, oldest first.

    For a past instant, it lists all seats that existed, without addresses and names.
    """
    search = SeatSearch(
        address_ref=None if address is None else _address_ref(directory, agency_id, address),
        subject_ref=None if subject is None else directory.subject_ref(agency_id, subject),
        state=state,
        unused_since=unused_since,
        unit_key=None if unit is None else _unit_key(unit),
    )
    if as_of is not None:
        _require_all(address=address, subject=subject, state=state, unused_since=unused_since, unit=unit)
        async with reader.read(agency_id, of_one_state=True) as connection:
            return await queries.list_past_seats(connection, agency_id, as_of, page)
    async with reader.read_people(agency_id) as read:
        found = await queries.list_seats(read.connection, agency_id, search, page)
        read.saw(seat.identified for seat in found.items)
    return found


@router.get(
    "/seats/{seat_id}",
    summary="Retrieve a seat",
    dependencies=[READ],
    responses=problem_responses(NotFound, SeatUnknown),
)
async def read_seat(agency_id: AgencyId, seat_id: SeatId, reader: ReaderDep, as_of: AtDep) -> SeatReply:
    """For a past instant, the reply contains no address or name."""
    if as_of is not None:
        async with reader.read(agency_id, of_one_state=True) as connection:
            return await queries.find_past_seat(connection, agency_id, seat_id, as_of)
    async with reader.read_people(agency_id) as read:
        seat = await queries.find_seat(read.connection, agency_id, seat_id)
        read.saw([seat.identified])
    return seat


@router.get("/seat-counts", summary="Retrieve the number of seats", dependencies=[READ])
async def count_seats(agency_id: AgencyId, reader: ReaderDep, as_of: AtDep) -> SeatCountsReply:
    """Shows how many seats of the agency are, or were at a past instant, in each state."""
    async with reader.read(agency_id, of_one_state=as_of is not None) as connection:
        if as_of is not None:
            return await queries.count_past_seats(connection, agency_id, as_of)
        return await queries.count_seats(connection, agency_id)


@router.get(
    "/seats/{seat_id}/history",
    summary="List the history of a seat",
    dependencies=[READ],
    responses=problem_responses(NotFound, SeatUnknown),
)
async def list_seat_history(
    agency_id: AgencyId, seat_id: SeatId, reader: ReaderDep, page: PageDep
) -> Page[SeatVersionReply]:
    """Shows who held the seat and in which state, oldest first, as far back as the history is kept."""
    async with reader.read(agency_id) as connection:
        return await queries.list_seat_versions(connection, agency_id, seat_id, page)


@router.get("/seat-history", summary="List the history of a person", dependencies=[READ])
async def list_person_history(
    agency_id: AgencyId,
    reader: ReaderDep,
    page: PageDep,
    directory: DirectoryDep,
    subject: Annotated[str, _SUBJECT],
) -> Page[SeatVersionReply]:
    """Shows which seats the person held and in which states, oldest first, as far back as the history is kept."""
    subject_ref = directory.subject_ref(agency_id, subject)
    async with reader.read(agency_id) as connection:
        return await queries.list_person_versions(connection, agency_id, subject_ref, page)


def _require_all(**conditions: object) -> None:
    """Raise InvalidInput for any condition: the seats of a past instant have no index."""
    for name, value in conditions.items():
        if value is not None:
            raise InvalidInput(name, value, "must not be combined with at: a past instant lists all seats")


def _address_ref(directory: Directory, agency_id: str, address: str) -> str:
    """The reference of an address's person. Raises InvalidInput, which names the parameter."""
    try:
        return directory.reference(agency_id, normalize_email(address))
    except InvalidInput as refusal:
        raise InvalidInput("address", address, refusal.rule) from refusal


def _unit_key(unit: str) -> str:
    """The key of a unit's seats. Raises InvalidInput for an empty unit, which no seat has."""
    normalized = normalize_unit(unit)
    if normalized is None:
        raise InvalidInput("unit", unit, "must not be empty")
    return unit_key(normalized)
