"""The read side of explanations."""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime

from muster_entitlements.domain.catalog import packaged_catalog
from muster_entitlements.domain.checks import Question, Reason, check
from muster_entitlements.domain.grants import holding
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.quotas import Limit, whose
from muster_entitlements.queries.checks import count_use, find_limits, find_question
from muster_entitlements.replies import CheckReply
from muster_entitlements.replies.explanations import (
    ExplainedCatalog,
    ExplainedEnrollment,
    ExplainedGrant,
    ExplainedQuota,
    ExplainedQuotaGrant,
    ExplainedSeat,
    ExplainedTerm,
    ExplainedWindow,
    ExplanationReply,
    FactEventReply,
)
from muster_entitlements.repository import catalogs, facts, grants, quota_grants, usage
from muster_entitlements.repository.facts import FactEvent
from muster_runtime.database.transactions import Connection

# The reasons with which a quota decides a check.
_OF_QUOTA = {Reason.QUOTA, Reason.QUOTA_USED_UP}


async def find_explanation(
    connection: Connection, agency_id: str, subject_ref: str, feature: str, now: datetime
) -> ExplanationReply:
    """The check of a person and a feature, and everything that decides it. Raises FeatureUnknown."""
    question = await find_question(connection, agency_id, subject_ref, feature, now)
    [answer] = await count_use([(subject_ref, question, check(question, now))], connection, now)
    reply = ExplanationReply(subject_ref=subject_ref, feature=feature, at=now, answer=CheckReply.of(answer))
    if question.pool is None:
        return reply
    pool, window = question.pool, question.window
    terms = await _list_terms(connection, pool)
    catalog = await _find_catalog(connection, question, now)
    [limit] = await find_limits(connection, [question], now) if answer.reason in _OF_QUOTA else [None]
    listed = list(question.grants)
    if limit is not None:  # use under these grants counts as granted
        listed += await grants.list_over(connection, pool.agency_id, subject_ref, feature, limit.period.starts_at, now)
    paying = await quota_grants.list_grants_of(connection, limit, whose(limit.quota, subject_ref)) if limit else []
    subjects = [pool.enrollment_id, str(catalog.number), *(term.term_id for term in terms)]
    subjects += [window.window_id] if window else []
    subjects += [*(grant.grant_id for grant in listed), *(grant.grant_id for grant in paying)]
    found = await facts.list_events(connection, pool.agency_id, subjects)
    events = {subject: _to_replies(found[subject]) for subject in subjects}
    reply.enrollment = ExplainedEnrollment(
        enrollment_id=pool.enrollment_id,
        state=pool.state(now),
        starts_at=pool.starts_at,
        ends_at=pool.ends_at,
        time_zone=pool.time_zone,
        events=events[pool.enrollment_id],
    )
    reply.terms = [term.model_copy(update={"events": events[term.term_id]}) for term in terms]
    reply.seat = await _find_seat(connection, pool, subject_ref)
    reply.catalog = catalog.model_copy(update={"events": events[str(catalog.number)]})
    if window is not None:
        reply.window = ExplainedWindow.explain(window, question.began_at, now, events[window.window_id])
    deciding = holding(question.grants, now)
    reply.grants = [
        ExplainedGrant.explain(grant, now, events[grant.grant_id], decides=grant is deciding) for grant in listed
    ]
    if limit is not None:
        explained = [ExplainedQuotaGrant.explain(grant, events[grant.grant_id]) for grant in paying]
        reply.quota = await _find_quota(connection, limit, subject_ref, explained)
    return reply


async def _list_terms(connection: Connection, pool: Pool) -> list[ExplainedTerm]:
    rows = await connection.fetch(
        """
        select term_id, renewed_to, ended
        from term
        where agency_id = $1 and enrollment_id = $2
        order by term_id
        """,
        pool.agency_id,
        pool.enrollment_id,
    )
    return [ExplainedTerm(**row, events=[]) for row in rows]


async def _find_seat(connection: Connection, pool: Pool, subject_ref: str) -> ExplainedSeat | None:
    row = await connection.fetchrow(
        """
        select
            s.seat_id, s.state, s.reason, coalesce(s.recorded_from, s.assigned_at) as recorded_from,
            coalesce(s.trial_began_at, s.activated_at) as trial_began_at
        from seat as s
        where s.agency_id = $1 and s.subject_ref = $2 and s.state <> 'revoked' and s.generation = $3
        """,
        pool.agency_id,
        subject_ref,
        pool.generation,
    )
    return ExplainedSeat(**row) if row else None


async def _find_catalog(connection: Connection, question: Question, now: datetime) -> ExplainedCatalog:
    """The version whose terms the window follows; without a window, the newest."""
    if question.window is None:
        catalog = await catalogs.find_catalog(connection, now)
    else:
        number = question.window.catalog_number
        catalog = (await usage.find_versions(connection, {number}, packaged_catalog()))[number]
    feature = catalog.features.get(question.feature or "")
    return ExplainedCatalog(number=catalog.number, feature=feature, events=[])


async def _find_quota(
    connection: Connection, limit: Limit, subject_ref: str, explained: list[ExplainedQuotaGrant]
) -> ExplainedQuota:
    counted = whose(limit.quota, subject_ref)
    sums = await usage.find_sums(connection, limit.agency_id, limit.feature, [counted], limit.period.starts_at)
    crossed = await facts.list_quota_events(connection, limit, counted)
    return ExplainedQuota.of(limit, sums.get(counted), _to_replies(crossed), explained)


def _to_replies(events: Iterable[FactEvent]) -> list[FactEventReply]:
    return [FactEventReply(**asdict(event)) for event in events]
