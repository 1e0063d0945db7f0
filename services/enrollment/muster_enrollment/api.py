"""The routes: decode and delegate."""

import unicodedata
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from muster_contracts import Instant
from muster_enrollment import handlers, queries, repository
from muster_enrollment.commands import (
    AcceptDataUseTerms,
    ImportRegister,
    RecordAtu,
    RevokeAtu,
    SubmitEnrollment,
    WithdrawAgency,
)
from muster_enrollment.domain.facts import Person
from muster_enrollment.register import parse_register
from muster_enrollment.settings import EnrollmentSettings
from muster_enrollment.views import (
    AcceptanceView,
    AgencyView,
    AuthorizationView,
    EnrollmentView,
    RegisterImported,
)
from muster_runtime.http import (
    EVERY_AGENCY,
    CommandsDep,
    Page,
    PageDep,
    ReaderDep,
    RequiredIfMatchDep,
    RuntimeDep,
    etag,
    media_type,
    requires,
    requires_program,
)

router = APIRouter(prefix="/v1")

_READ = [requires("enrollment:read")]
_WRITE = [requires("enrollment:write")]
# GSA decides what is authorized, and the program who is on its register: no agency does so for itself.
_AUTHORIZE = [requires_program("enrollment:authorize")]
_OPERATE = [requires_program("enrollment:operate")]

_DELIMITERS = {"text/csv": ",", "text/tab-separated-values": "\t"}


def _visible(text: str) -> str:
    """Beside the pattern, which says what every kind of regular expression can."""
    if any(unicodedata.category(character).startswith("C") for character in text):
        raise ValueError("must hold no control, invisible or unassigned character")
    return text


# Text for people and the issuer's numbers.
_Text = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$"),
    AfterValidator(_visible),
]
_Email = Annotated[
    str, StringConstraints(max_length=254, pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$"), AfterValidator(_visible)
]
# What a column and a report can hold; the agency's headcount sets the real limit.
_Seats = Annotated[int, Field(strict=True, ge=1, le=10_000_000)]


async def _seats_per_head(runtime: RuntimeDep) -> float:
    settings = runtime.settings
    assert isinstance(settings, EnrollmentSettings)
    return settings.seats_per_head


SeatsPerHeadDep = Annotated[float, Depends(_seats_per_head)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PersonRequest(_Request):
    """A person who speaks or signs for the agency."""

    name: _Text
    email: _Email

    def to_person(self) -> Person:
        """The person as the domain knows it."""
        return Person(self.name, self.email)


class EnrollmentRequest(_Request):
    """Ask to join: how many seats, from when, and who administers it."""

    seats: _Seats
    starts_at: Instant
    contact: PersonRequest


class AuthorizationRequest(_Request):
    """An authorization to use as GSA issued it, in force within [valid_from, valid_until)."""

    number: _Text
    issuer: _Text
    product: _Text
    valid_from: Instant
    valid_until: Instant


class ReasonRequest(_Request):
    """Why; it is told to every subscriber, so it must not name a person."""

    reason: _Text


class AcceptanceRequest(_Request):
    """The acceptance of the data-use terms, with the SHA-256 of the signed document."""

    terms_version: _Text
    signer: PersonRequest
    evidence_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@router.post(
    "/register",
    dependencies=_OPERATE,
    response_model=RegisterImported,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {each: {"schema": {"type": "string"}} for each in _DELIMITERS},
        }
    },
)
async def import_register(request: Request, commands: CommandsDep) -> Response:
    """Take over a register file, all of it or nothing."""
    entries = parse_register(await request.body(), _DELIMITERS[media_type(request)])
    return await commands.execute(EVERY_AGENCY, lambda uow: handlers.import_register(uow, ImportRegister(entries)))


@router.get("/agencies", dependencies=_READ)
async def list_agencies(reader: ReaderDep, page: PageDep) -> Page[AgencyView]:
    """The register's agencies; an agency sees itself."""
    async with reader.read(reader.tenant) as connection:
        found = await queries.list_agencies(connection, reader.tenant, page.after, page.limit)
    return page.make(found, key=lambda agency: agency.id)


@router.get("/agencies/{agency_id}", dependencies=_READ)
async def show_agency(agency_id: str, reader: ReaderDep) -> AgencyView:
    """One agency."""
    async with reader.read(agency_id) as connection:
        return await queries.find_agency(connection, agency_id)


@router.get("/agencies/{agency_id}/enrollment", dependencies=_READ)
async def show_enrollment(agency_id: str, reader: ReaderDep, runtime: RuntimeDep, response: Response) -> EnrollmentView:
    """Where an agency stands, and what is missing; the ETag is of its enrolment, once it was submitted."""
    async with reader.read(agency_id) as connection:
        standing = await repository.load_standing(connection, agency_id)
    if standing.enrollment:
        response.headers["ETag"] = etag(standing.enrollment.version)
    return EnrollmentView.of(standing, runtime.clock.now())


@router.get("/agencies/{agency_id}/authorizations", dependencies=_READ)
async def list_authorizations(agency_id: str, reader: ReaderDep, page: PageDep) -> Page[AuthorizationView]:
    """An agency's authorizations to use."""
    async with reader.read(agency_id) as connection:
        await queries.find_agency(connection, agency_id)
        found = await queries.list_authorizations(connection, agency_id, page.after, page.limit)
    return page.make(found, key=lambda authorization: authorization.authorization_id)


@router.post("/agencies/{agency_id}/enrollments", dependencies=_WRITE, status_code=201, response_model=EnrollmentView)
async def submit_enrollment(
    agency_id: str, body: EnrollmentRequest, commands: CommandsDep, seats_per_head: SeatsPerHeadDep
) -> Response:
    """Ask to join the program."""
    command = SubmitEnrollment(agency_id, body.seats, body.starts_at, body.contact.to_person())
    return await commands.execute(
        agency_id,
        lambda uow: handlers.submit_enrollment(uow, command, seats_per_head),
        status_code=201,
        location=lambda reply: f"/v1/agencies/{agency_id}/enrollment",
    )


@router.post(
    "/agencies/{agency_id}/authorizations", dependencies=_AUTHORIZE, status_code=201, response_model=AuthorizationView
)
async def record_atu(agency_id: str, body: AuthorizationRequest, commands: CommandsDep) -> Response:
    """Record an authorization to use (ATU)."""
    command = RecordAtu(agency_id, body.number, body.issuer, body.product, body.valid_from, body.valid_until)
    return await commands.execute(agency_id, lambda uow: handlers.record_atu(uow, command), status_code=201)


@router.post(
    "/agencies/{agency_id}/authorizations/{authorization_id}/revocation",
    dependencies=_AUTHORIZE,
    response_model=AuthorizationView,
)
async def revoke_atu(agency_id: str, authorization_id: str, body: ReasonRequest, commands: CommandsDep) -> Response:
    """Record that the issuer took an authorization back."""
    command = RevokeAtu(agency_id, authorization_id, body.reason)
    return await commands.execute(agency_id, lambda uow: handlers.revoke_atu(uow, command))


@router.post(
    "/agencies/{agency_id}/data-use-acceptances", dependencies=_WRITE, status_code=201, response_model=AcceptanceView
)
async def accept_data_use_terms(agency_id: str, body: AcceptanceRequest, commands: CommandsDep) -> Response:
    """Record that the agency accepted the data-use terms."""
    command = AcceptDataUseTerms(agency_id, body.terms_version, body.signer.to_person(), body.evidence_sha256)
    return await commands.execute(agency_id, lambda uow: handlers.accept_data_use_terms(uow, command), status_code=201)


@router.post("/agencies/{agency_id}/withdrawal", dependencies=_WRITE, response_model=EnrollmentView)
async def withdraw_agency(
    agency_id: str, body: ReasonRequest, commands: CommandsDep, if_match: RequiredIfMatchDep
) -> Response:
    """Leave the program; `If-Match` is the ETag of the enrollment as it was read."""
    command = WithdrawAgency(agency_id, body.reason, expected_version=if_match)
    return await commands.execute(agency_id, lambda uow: handlers.withdraw_agency(uow, command))
