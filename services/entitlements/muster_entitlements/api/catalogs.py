"""The routes of the feature catalog: read its versions; draft, plan, and publish the next one."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import Field

from muster_contracts.entitlements import CatalogRule
from muster_entitlements.api.parameters import APPROVAL_DAYS, OPERATE, READ
from muster_entitlements.commands import PublishCatalog, SaveCatalogDraft
from muster_entitlements.domain.catalog import MOST_FEATURES, Feature
from muster_entitlements.errors import CatalogDraftMissing, CatalogVersionUnknown
from muster_entitlements.handlers import catalogs
from muster_entitlements.queries import catalog as queries
from muster_entitlements.replies.catalog import CatalogPlanReply, CatalogVersionReply
from muster_runtime.errors import InvalidInput, NotFound, PreconditionFailed
from muster_runtime.http.application import (
    EVERY_AGENCY,
    MEBIBYTE,
    PROPOSED,
    CommandsDep,
    IfMatchDep,
    PageDep,
    ReaderDep,
    RequestBody,
    RequiredIfMatchDep,
    RuntimeDep,
    body_limit,
    etag,
    needs_approval,
)
from muster_runtime.http.approvals import ProposalOutdated, TooManyProposals
from muster_runtime.http.problem_responses import COMMON, problem_responses
from muster_runtime.http.tenancy import InvalidEntityTag, PreconditionRequired
from muster_runtime.pagination import Page

router = APIRouter(prefix="/v1/catalog", tags=["catalog"], responses=COMMON)

CATALOG_KEYS = 40 * MOST_FEATURES

Number = Annotated[str, Path(pattern=r"^[1-9][0-9]{0,8}$")]


class CatalogRequest(RequestBody):
    """A whole feature catalog, and how it reaches agencies that are already enrolled."""

    rule: CatalogRule = Field(
        description="`now`: at once; `next-term`: with each agency's next term; `new-agencies`: not at all."
    )
    features: tuple[Feature, ...] = Field(min_length=1, max_length=MOST_FEATURES)


class CatalogPublicationRequest(RequestBody):
    """Options for publishing a catalog."""

    allow_below_use: bool = Field(
        default=False,
        strict=True,
        description=(
            "Publish even if this immediately lowers a quota below the use in the current period: anyone above it is "
            "refused further use."
        ),
    )


@router.get("", summary="Retrieve the catalog", dependencies=[READ])
async def read_catalog(reader: ReaderDep) -> CatalogVersionReply:
    """The newest published version."""
    async with reader.read_own() as connection:
        return await queries.find_newest(connection)


@router.get("/versions", summary="List the versions of the catalog", dependencies=[READ])
async def list_versions(reader: ReaderDep, page: PageDep) -> Page[CatalogVersionReply]:
    """The published versions, by number."""
    async with reader.read_own() as connection:
        return await queries.list_versions(connection, page)


@router.get(
    "/versions/{number}",
    summary="Retrieve a version of the catalog",
    dependencies=[READ],
    responses=problem_responses(NotFound, CatalogVersionUnknown),
)
async def read_version(number: Number, reader: ReaderDep) -> CatalogVersionReply:
    """A published version, and how many agencies do not have it yet."""
    async with reader.read_own() as connection:
        return await queries.find_version(connection, int(number))


@router.get(
    "/draft",
    summary="Retrieve the draft of the catalog",
    dependencies=[OPERATE],
    responses=problem_responses(NotFound, CatalogDraftMissing),
)
async def read_draft(reader: ReaderDep, response: Response) -> CatalogVersionReply:
    async with reader.read(EVERY_AGENCY) as connection:
        draft = await queries.find_draft(connection)
    response.headers["etag"] = etag(draft.revision)
    return draft


@router.put(
    "/draft",
    summary="Set the draft of the catalog",
    dependencies=[OPERATE],
    response_model=CatalogVersionReply,
    responses=problem_responses(PreconditionFailed, InvalidEntityTag),
)
@body_limit(MEBIBYTE, keys=CATALOG_KEYS)
async def save_draft(body: CatalogRequest, commands: CommandsDep, if_match: IfMatchDep) -> Response:
    """Replaces the whole draft of the next version; with the optional `If-Match`, only if the draft has that ETag.

    Nothing changes for anyone until the draft is published.
    """
    command = SaveCatalogDraft(body.rule, body.features, if_match)
    return await commands.execute(
        EVERY_AGENCY,
        partial(catalogs.save_catalog_draft, command=command),
        version=lambda draft: draft.revision,
    )


@router.post(
    "/draft/publication",
    summary="Publish the draft of the catalog",
    dependencies=[OPERATE],
    response_model=CatalogVersionReply,
    responses=problem_responses(
        NotFound,
        CatalogDraftMissing,
        PreconditionFailed,
        PreconditionRequired,
        InvalidEntityTag,
        InvalidInput,
        ProposalOutdated,
        TooManyProposals,
    )
    | PROPOSED,
)
@needs_approval(days=APPROVAL_DAYS, revision=catalogs.find_draft_revision)
async def publish_draft(
    commands: CommandsDep, if_match: RequiredIfMatchDep, body: CatalogPublicationRequest | None = None
) -> Response:
    """Publishes the draft whose ETag is in `If-Match`. Enrolled agencies get it by its rule, one after another.

    A quota that would immediately fall below the use in the current period is refused unless `allow_below_use` is true.
    """
    command = PublishCatalog(if_match, allow_below_use=body is not None and body.allow_below_use)
    return await commands.execute(EVERY_AGENCY, partial(catalogs.publish_catalog, command=command))


@router.post("/plan", summary="Plan a catalog", dependencies=[OPERATE])
@body_limit(MEBIBYTE, keys=CATALOG_KEYS)
async def plan_catalog(body: CatalogRequest, reader: ReaderDep, runtime: RuntimeDep) -> CatalogPlanReply:
    """Shows who would gain, who would lose, and who would be above a quota if this catalog were published now.

    It changes nothing.
    """
    read = partial(reader.read, EVERY_AGENCY, of_one_state=True)
    return await queries.find_plan(read, body.rule, body.features, runtime.clock.now())
