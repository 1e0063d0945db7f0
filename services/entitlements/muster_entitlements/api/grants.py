"""The routes of grants: features for an agency or a person in addition to the catalog's windows."""

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Response
from pydantic import Field

from muster_contracts import AgencyId
from muster_contracts.entitlements import AccessMode
from muster_entitlements.api.parameters import LONGEST_SUBJECT, OPERATE, PREFIX, READ, DirectoryDep, RecordedAtDep
from muster_entitlements.commands import GrantFeature, RevokeGrant
from muster_entitlements.errors import FeatureUnknown, GrantEnded, GrantOverlaps, GrantsFull, GrantUnknown, PoolUnknown
from muster_entitlements.handlers import grants
from muster_entitlements.queries import grants as queries
from muster_entitlements.replies.grants import GrantReply
from muster_runtime.errors import InvalidInput, NotFound
from muster_runtime.http.application import (
    CommandsDep,
    PageDep,
    ReaderDep,
    ReasonLine,
    RequestBody,
    RuntimeDep,
    WrittenInstant,
)
from muster_runtime.http.problem_responses import COMMON, problem_responses
from muster_runtime.pagination import Page

GrantId = Annotated[str, Path(pattern=r"^grt_[0-9a-f]{32}$")]

_Reason = Annotated[
    ReasonLine, Field(description="Every subscriber receives it, so it must not name a person or contain an @.")
]


class GrantRequest(RequestBody):
    """A feature for an agency or one person, within [starts_at, ends_at)."""

    feature: str
    subject: str | None = Field(
        default=None,
        max_length=LONGEST_SUBJECT,
        description="An e-mail address or a subject reference. Default: every seat of the agency.",
    )
    mode: Literal["unlimited", "quota"] = Field(
        default="unlimited",
        description="`quota`: a hard quota per seat and calendar month, with the catalog's present limit.",
    )
    starts_at: WrittenInstant | None = Field(default=None, description="Default: now.")
    ends_at: WrittenInstant | None = Field(default=None, description="Default: until it is revoked.")
    reason: _Reason
    allow_below_use: bool = Field(
        default=False,
        strict=True,
        description="Grant a quota even if it is below the use in its first period: anyone above it is refused more.",
    )


class GrantRevocationRequest(RequestBody):
    """Why a grant is revoked."""

    reason: _Reason


router = APIRouter(prefix=f"{PREFIX}/grants", tags=["grants"], responses=COMMON)


@router.get("", summary="List grants", dependencies=[READ])
async def list_grants(
    agency_id: AgencyId, reader: ReaderDep, runtime: RuntimeDep, page: PageDep, recorded: RecordedAtDep
) -> Page[GrantReply]:
    """Lists current, past, and future grants, oldest first."""
    async with reader.read(agency_id) as connection:
        if recorded is not None:
            return await queries.list_recorded_grants(connection, agency_id, page, recorded.recorded_at)
        return await queries.list_grants(connection, agency_id, page, runtime.clock.now())


@router.get(
    "/{grant_id}",
    summary="Retrieve a grant",
    dependencies=[READ],
    responses=problem_responses(NotFound, GrantUnknown),
)
async def read_grant(agency_id: AgencyId, grant_id: GrantId, reader: ReaderDep, runtime: RuntimeDep) -> GrantReply:
    async with reader.read(agency_id) as connection:
        return await queries.find_grant(connection, agency_id, grant_id, runtime.clock.now())


@router.post(
    "",
    summary="Grant a feature",
    dependencies=[OPERATE],
    status_code=201,
    response_model=GrantReply,
    responses=problem_responses(NotFound, PoolUnknown, FeatureUnknown, InvalidInput, GrantOverlaps, GrantsFull),
)
async def grant_feature(
    agency_id: AgencyId, body: GrantRequest, commands: CommandsDep, directory: DirectoryDep
) -> Response:
    """A grant takes precedence over the feature's window, and a person's grant over the agency's.

    It does not end with the agency's enrollment, or with the person's seat.
    """
    command = GrantFeature(
        agency_id=agency_id,
        feature=body.feature,
        subject_ref=None if body.subject is None else directory.subject_ref(agency_id, body.subject),
        mode=AccessMode(body.mode),
        starts_at=body.starts_at,
        ends_at=body.ends_at,
        reason=body.reason,
        allow_below_use=body.allow_below_use,
    )
    return await commands.execute(
        agency_id,
        partial(grants.grant_feature, command=command),
        status_code=201,
        location=lambda grant: f"/v1/agencies/{agency_id}/grants/{grant.grant_id}",
    )


@router.post(
    "/{grant_id}/revocation",
    summary="Revoke a grant",
    dependencies=[OPERATE],
    response_model=GrantReply,
    responses=problem_responses(NotFound, GrantUnknown, GrantEnded),
)
async def revoke_grant(
    agency_id: AgencyId, grant_id: GrantId, body: GrantRevocationRequest, commands: CommandsDep
) -> Response:
    """Repeating the revocation changes nothing."""
    command = RevokeGrant(agency_id, grant_id, body.reason)
    return await commands.execute(agency_id, partial(grants.revoke_grant, command=command))
