"""The read side of checks of the past."""

from dataclasses import replace

from muster_entitlements.domain.as_of import AsOf
from muster_entitlements.domain.checks import Question, Reason, check
from muster_entitlements.queries.checks import Pair, find_limits
from muster_entitlements.replies import CheckReply
from muster_entitlements.repository import catalogs, history
from muster_runtime.database.transactions import Connection


async def find_past_check(connection: Connection, pair: Pair, as_of: AsOf) -> CheckReply:
    """The check of a pair at a past instant. Counted use has no history. Raises FeatureUnknown."""
    question = await find_past_question(connection, pair, as_of)
    answer = check(question, as_of.at)
    if answer.reason is Reason.QUOTA:
        [limit] = await find_limits(connection, [question], as_of.at)
        if limit is not None:
            answer = replace(answer, limit=limit.quota.limit, resets_at=limit.period.ends_at)
    return CheckReply.of(answer)


async def find_past_question(connection: Connection, pair: Pair, as_of: AsOf) -> Question:
    """All that the check depends on, as it was. Raises FeatureUnknown."""
    pool = await history.find_pool(connection, pair.agency_id, as_of)
    question = Question(pool, None, pair.feature, None)
    if pool is not None:
        windows = await history.list_windows(connection, pair.agency_id, pool.enrollment_id, as_of)
        seat = await history.find_seat(connection, pool, pair.subject_ref, as_of)
        question = replace(
            question,
            window=next((window for window in windows if window.feature == pair.feature), None),
            seat=seat.state if seat else None,
            began_at=seat.began_at if seat else None,
        )
        if pair.feature is not None:
            grants = await history.list_grants(connection, pair.agency_id, as_of, pair.subject_ref, pair.feature)
            question = replace(question, grants=tuple(grants))
    if pair.feature is not None and question.window is None and not question.grants:
        (await catalogs.find_catalog(connection, as_of.at)).known(pair.feature)
    return question
