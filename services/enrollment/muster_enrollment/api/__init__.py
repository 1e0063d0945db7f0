"""The routes of enrollment: decode and delegate."""

import unicodedata
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import AfterValidator, Field, StringConstraints

from muster_contracts import AgencyId
from muster_enrollment import queries
from muster_enrollment.commands import (
    AcceptDataUseTerms,
    ImportRegister,
    RecordAtu,
    RevokeAtu,
    SubmitEnrollment,
    WithdrawAgency,
)
from muster_enrollment.domain.facts import Person
from muster_enrollment.domain.register import parse_register
from muster_enrollment.domain.rules import check_continued
from muster_enrollment.errors import RegisterRefused
from muster_enrollment.handlers import acceptances, authorizations, enrollments, register
from muster_enrollment.replies import (
    AcceptanceReply,
    AgencyReply,
    AuthorizationReply,
    EnrollmentReply,
    RegisterImportReply,
)
from muster_enrollment.settings import EnrollmentSettings
from muster_runtime.errors import Conflict, InvalidInput, PreconditionFailed
from muster_runtime.http.application import (
    EVERY_AGENCY,
    CommandsDep,
    IdentityDep,
    PageDep,
    ReaderDep,
    ReasonLine,
    RequestBody,
    RequiredIfMatchDep,
    RuntimeDep,
    WrittenInstant,
    etag,
    media_type,
    requires,
    requires_program,
)
from muster_runtime.http.problem_responses import COMMON, problem_responses
from muster_runtime.http.tenancy import InvalidEntityTag, PreconditionRequired
from muster_runtime.pagination import Page

router = APIRouter(prefix="/v1", tags=["enrollment"], responses=COMMON)

_READ = [requires("enrollment:read")]
_WRITE = [requires("enrollment:write")]
# GSA issues authorizations, and the program maintains the register: an agency's token cannot do either.
_AUTHORIZE = [requires_program("enrollment:authorize")]
_OPERATE = [requires_program("enrollment:operate")]

_DELIMITERS = {"text/csv": ",", "text/tab-separated-values": "\t"}


def _visible(text: str) -> str:
    """Checks what the pattern cannot: not every regular expression engine knows Unicode's categories."""
    if any(unicodedata.category(character).startswith(("C", "Zl", "Zp")) for character in text):
        raise ValueError("must not contain control, invisible, or unassigned characters, or line separators")
    return text


# Text for people, and the issuer's numbers.
_Text = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$"),
    AfterValidator(_visible),
]
_Email = Annotated[str, StringConstraints(max_length=254, pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")]
# The maximum that the database and reports support; the agency's headcount sets the real limit.
_Seats = Annotated[int, Field(strict=True, ge=1, le=10_000_000)]

AuthorizationId = Annotated[str, Path(pattern=r"^atu_[0-9a-f]{32}$")]


async def _seats_per_head(runtime: RuntimeDep) -> float:
    settings = runtime.settings
    assert isinstance(settings, EnrollmentSettings)
    return settings.seats_per_head


SeatsPerHeadDep = Annotated[float, Depends(_seats_per_head)]


class PersonRequest(RequestBody):
    """A person who represents the agency or signs for it."""

    name: _Text
    email: _Email

    def to_person(self) -> Person:
        """The person in the domain's form."""
        return Person(self.name, self.email)


class EnrollmentRequest(RequestBody):
    """A request to enroll: the number of seats, the start, and the administrator."""

    seats: _Seats
    starts_at: WrittenInstant
    contact: PersonRequest
    time_zone: _Text | None = Field(
        default=None,
        description="The IANA name of the agency's time zone: its dates are days in that zone. null: UTC, and a trial "
        "lasts exactly its number of days.",
        examples=["America/New_York"],
    )
    continues: list[AgencyId] = Field(
        default_factory=list,
        max_length=10,
        description="The agencies that this one continues, as after a split or a merger: the trial time that they "
        "have used counts as its own. The token must act for them.",
        examples=[["DOD"]],
    )


class AuthorizationRequest(RequestBody):
    """An authorization to use as GSA issued it, in force within [valid_from, valid_until)."""

    number: _Text
    issuer: _Text
    product: _Text
    valid_from: WrittenInstant
    valid_until: WrittenInstant


class ReasonRequest(RequestBody):
    """The reason. Every subscriber receives it, so it must not name a person."""

    reason: Annotated[ReasonLine, AfterValidator(_visible)]


class AcceptanceRequest(RequestBody):
    """The acceptance of the data-use terms, with the SHA-256 hash of the signed document."""

    terms_version: _Text
    signer: PersonRequest
    evidence_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@router.post(
    "/register",
    summary="Import the agency register",
    dependencies=_OPERATE,
    response_model=RegisterImportReply,
    responses=problem_responses(InvalidInput, RegisterRefused),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {each: {"schema": {"type": "string"}} for each in _DELIMITERS},
        }
    },
)
async def import_register(request: Request, commands: CommandsDep) -> Response:
    """Imports a register file, CSV or tab-separated. If any value breaks a rule, nothing is imported."""
    command = ImportRegister(parse_register(await request.body(), _DELIMITERS[media_type(request)]))
    return await commands.execute(EVERY_AGENCY, partial(register.import_register, command=command))


@router.get("/agencies", summary="List agencies", dependencies=_READ)
async def list_agencies(reader: ReaderDep, page: PageDep) -> Page[AgencyReply]:
    """A token for one agency sees only that agency."""
    async with reader.read_own() as connection:
        return await queries.list_agencies(connection, reader.agencies, page)


@router.get("/agencies/{agency_id}", summary="Retrieve an agency", dependencies=_READ)
async def show_agency(agency_id: AgencyId, reader: ReaderDep) -> AgencyReply:
    async with reader.read(agency_id) as connection:
        return await queries.find_agency(connection, agency_id)


@router.get("/agencies/{agency_id}/enrollment", summary="Retrieve an agency's enrollment", dependencies=_READ)
async def show_enrollment(
    agency_id: AgencyId, reader: ReaderDep, runtime: RuntimeDep, response: Response
) -> EnrollmentReply:
    """Returns the state and the missing conditions. Once the enrollment is submitted, the response has an ETag."""
    async with reader.read(agency_id) as connection:
        reply, version = await queries.find_enrollment(connection, agency_id, runtime.clock.now())
    if version is not None:
        response.headers["ETag"] = etag(version)
    return reply


@router.get("/agencies/{agency_id}/authorizations", summary="List an agency's authorizations", dependencies=_READ)
async def list_authorizations(agency_id: AgencyId, reader: ReaderDep, page: PageDep) -> Page[AuthorizationReply]:
    async with reader.read(agency_id) as connection:
        return await queries.list_authorizations(connection, agency_id, page)


@router.post(
    "/agencies/{agency_id}/enrollments",
    summary="Submit an enrollment",
    dependencies=_WRITE,
    status_code=201,
    response_model=EnrollmentReply,
    responses=problem_responses(Conflict),
)
async def submit_enrollment(
    agency_id: AgencyId,
    body: EnrollmentRequest,
    commands: CommandsDep,
    identity: IdentityDep,
    seats_per_head: SeatsPerHeadDep,
) -> Response:
    """The enrollment becomes active once an authorization is in force and the data-use terms are accepted."""
    # What is left of a trial would reveal how much of it another agency has used.
    check_continued(agency_id, body.continues, [each for each in body.continues if identity.may_act_for(each)])
    command = SubmitEnrollment(
        agency_id, body.seats, body.starts_at, body.contact.to_person(), body.time_zone, tuple(body.continues)
    )
    return await commands.execute(
        agency_id,
        partial(enrollments.submit_enrollment, command=command, seats_per_head=seats_per_head),
        status_code=201,
        location=lambda reply: f"/v1/agencies/{agency_id}/enrollment",
    )


@router.post(
    "/agencies/{agency_id}/authorizations",
    summary="Record an authorization to use (ATU)",
    dependencies=_AUTHORIZE,
    status_code=201,
    response_model=AuthorizationReply,
    responses=problem_responses(Conflict),
)
async def record_atu(agency_id: AgencyId, body: AuthorizationRequest, commands: CommandsDep) -> Response:
    command = RecordAtu(agency_id, body.number, body.issuer, body.product, body.valid_from, body.valid_until)
    return await commands.execute(agency_id, partial(authorizations.record_atu, command=command), status_code=201)


@router.post(
    "/agencies/{agency_id}/authorizations/{authorization_id}/revocation",
    summary="Revoke an authorization",
    dependencies=_AUTHORIZE,
    response_model=AuthorizationReply,
    responses=problem_responses(Conflict),
)
async def revoke_atu(
    agency_id: AgencyId, authorization_id: AuthorizationId, body: ReasonRequest, commands: CommandsDep
) -> Response:
    """Records that the issuer revoked an authorization. The enrollment is suspended if no other is in force."""
    command = RevokeAtu(agency_id, authorization_id, body.reason)
    return await commands.execute(agency_id, partial(authorizations.revoke_atu, command=command))


@router.post(
    "/agencies/{agency_id}/data-use-acceptances",
    summary="Accept the data-use terms",
    dependencies=_WRITE,
    status_code=201,
    response_model=AcceptanceReply,
    responses=problem_responses(Conflict),
)
async def accept_data_use_terms(agency_id: AgencyId, body: AcceptanceRequest, commands: CommandsDep) -> Response:
    command = AcceptDataUseTerms(agency_id, body.terms_version, body.signer.to_person(), body.evidence_sha256)
    return await commands.execute(
        agency_id, partial(acceptances.accept_data_use_terms, command=command), status_code=201
    )


@router.post(
    "/agencies/{agency_id}/withdrawal",
    summary="Withdraw from the program",
    dependencies=_WRITE,
    response_model=EnrollmentReply,
    responses=problem_responses(InvalidEntityTag, Conflict, PreconditionFailed, PreconditionRequired),
)
async def withdraw_agency(
    agency_id: AgencyId, body: ReasonRequest, commands: CommandsDep, if_match: RequiredIfMatchDep
) -> Response:
    """In `If-Match`, send the ETag of the enrollment as you read it."""
    command = WithdrawAgency(agency_id, body.reason, expected_version=if_match)
    return await commands.execute(agency_id, partial(enrollments.withdraw_agency, command=command))
