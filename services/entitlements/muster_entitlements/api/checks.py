"""The routes of checks: whether people may use a feature."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BeforeValidator, FailFast, Field

from muster_contracts import AgencyId
from muster_entitlements.api.parameters import LONGEST_SUBJECT, PREFIX, READ, READ_ALL, AsOfDep, DirectoryDep
from muster_entitlements.domain.people import Directory
from muster_entitlements.errors import FeatureUnknown
from muster_entitlements.queries import checks as queries
from muster_entitlements.queries.explanations import find_explanation
from muster_entitlements.queries.pairs import Pair as PairToCheck
from muster_entitlements.queries.past_checks import find_past_check, find_past_checks
from muster_entitlements.replies import CheckReply, ChecksReply
from muster_entitlements.replies.explanations import ExplanationReply
from muster_runtime.errors import InvalidInput, NotFound
from muster_runtime.http.application import MEBIBYTE, ReaderDep, RequestBody, RuntimeDep, body_limit
from muster_runtime.http.problem_responses import COMMON, problem_responses
from muster_runtime.pacing import Pace

MOST_PAIRS = 10_000

# Fits this many pairs with the longest agency, address, and feature.
CHECKS_LIMIT = 6 * MEBIBYTE
CHECKS_KEYS = 4 * MOST_PAIRS


Subject = Annotated[str, Query(max_length=LONGEST_SUBJECT, description="An e-mail address or a subject reference.")]
FeatureKey = Annotated[str, Query(description="A feature of the catalog.")]


class Pair(RequestBody):
    """A person and a feature to check."""

    subject: str = Field(max_length=LONGEST_SUBJECT, description="An e-mail address or a subject reference.")
    feature: str | None = Field(default=None, description="A feature of the catalog. Default: check only the seat.")


class AgencyPair(Pair):
    """A person of an agency and a feature to check."""

    agency_id: AgencyId


_KEYS = frozenset(AgencyPair.model_fields)


def _cut(pairs: object) -> object:
    """Drop the unknown keys of a pair, except for the first: each would produce an error."""
    if not isinstance(pairs, list):
        return pairs
    return [_with_one_unknown_key(pair) if isinstance(pair, dict) else pair for pair in pairs]


def _with_one_unknown_key(pair: dict[str, object]) -> dict[str, object]:
    if len(pair) <= len(_KEYS) + 1:
        return pair
    kept = {*_KEYS, next(key for key in pair if key not in _KEYS)}
    return {key: value for key, value in pair.items() if key in kept}


class ChecksRequest(RequestBody):
    """Checks of one agency's people."""

    pairs: Annotated[list[Pair], FailFast(), Field(min_length=1, max_length=MOST_PAIRS), BeforeValidator(_cut)]


class AgenciesChecksRequest(RequestBody):
    """Checks of people of many agencies."""

    pairs: Annotated[list[AgencyPair], FailFast(), Field(min_length=1, max_length=MOST_PAIRS), BeforeValidator(_cut)]


router = APIRouter(tags=["checks"], responses=COMMON)


@router.get(
    f"{PREFIX}/checks",
    summary="Check access",
    dependencies=[READ],
    responses=problem_responses(NotFound, FeatureUnknown),
)
async def check_subject(
    agency_id: AgencyId,
    reader: ReaderDep,
    runtime: RuntimeDep,
    directory: DirectoryDep,
    subject: Subject,
    feature: Annotated[str | None, Query(description="A feature of the catalog. Default: check only the seat.")] = None,
    *,
    as_of: AsOfDep,
) -> CheckReply:
    """Shows whether a person may use a feature now, or could at a past instant, and why."""
    pair = PairToCheck(agency_id, directory.subject_ref(agency_id, subject), feature)
    async with reader.read(agency_id, of_one_state=as_of is not None) as connection:
        if as_of is not None:
            return await find_past_check(connection, pair, as_of)
        return await queries.find_check(connection, pair, runtime.clock.now())


@router.get(
    f"{PREFIX}/checks/explanation",
    summary="Explain a check",
    dependencies=[READ],
    responses=problem_responses(NotFound, FeatureUnknown),
)
async def explain_check(
    agency_id: AgencyId,
    reader: ReaderDep,
    runtime: RuntimeDep,
    directory: DirectoryDep,
    subject: Subject,
    feature: FeatureKey,
) -> ExplanationReply:
    """Shows everything that decides the answer: enrollment, terms, seat, catalog, window, grants, and counted use.

    Most parts list the events behind them.
    """
    subject_ref = directory.subject_ref(agency_id, subject)
    async with reader.read(agency_id, of_one_state=True, partitioned="usage_sum") as connection:
        return await find_explanation(connection, agency_id, subject_ref, feature, runtime.clock.now())


@router.post(f"{PREFIX}/checks", summary="Check access in bulk", dependencies=[READ])
@body_limit(CHECKS_LIMIT, keys=CHECKS_KEYS)
async def check_subjects(
    agency_id: AgencyId,
    body: ChecksRequest,
    reader: ReaderDep,
    runtime: RuntimeDep,
    directory: DirectoryDep,
    as_of: AsOfDep,
) -> ChecksReply:
    """Answers up to 10,000 checks, in order, and changes nothing. If one pair breaks a rule, all are refused."""
    pairs = await _pairs(directory, [(agency_id, pair) for pair in body.pairs])
    async with reader.read(agency_id, of_one_state=as_of is not None) as connection:
        if as_of is not None:
            return await find_past_checks(connection, pairs, as_of)
        return await queries.find_checks(connection, pairs, runtime.clock.now())


@router.post("/v1/checks", summary="Check access in many agencies", dependencies=[READ_ALL])
@body_limit(CHECKS_LIMIT, keys=CHECKS_KEYS)
async def check_agencies(
    body: AgenciesChecksRequest, reader: ReaderDep, runtime: RuntimeDep, directory: DirectoryDep, as_of: AsOfDep
) -> ChecksReply:
    """Answers up to 10,000 checks, in order, and changes nothing. If one pair breaks a rule, all are refused."""
    pairs = await _pairs(directory, [(pair.agency_id, pair) for pair in body.pairs])
    async with reader.read_own(of_one_state=as_of is not None) as connection:
        if as_of is not None:
            return await find_past_checks(connection, pairs, as_of)
        return await queries.find_checks(connection, pairs, runtime.clock.now())


async def _pairs(directory: Directory, asked: Sequence[tuple[str, Pair]]) -> list[PairToCheck]:
    """The agencies' pairs with their subject references. Raises InvalidInput, which names the pair."""
    pairs, pace = [], Pace()
    for number, (agency_id, pair) in enumerate(asked):
        await pace.keep()
        pairs.append(_pair(directory, agency_id, number, pair))
    return pairs


def _pair(directory: Directory, agency_id: str, number: int, pair: Pair) -> PairToCheck:
    try:
        return PairToCheck(agency_id, directory.subject_ref(agency_id, pair.subject), pair.feature)
    except InvalidInput as refusal:
        raise InvalidInput(f"pairs.{number}.subject", pair.subject, refusal.rule) from refusal
