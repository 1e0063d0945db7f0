"""Checks and counts a use in one transaction, so that concurrent callers never exceed a hard quota."""

import hashlib

from muster_entitlements.commands import ConsumeFeature
from muster_entitlements.domain.adoption import bit_of
from muster_entitlements.domain.charges import Charge
from muster_entitlements.domain.checks import Verdict, check
from muster_entitlements.domain.days import zone_of
from muster_entitlements.domain.meters import Meter
from muster_entitlements.domain.quotas import WHOLE_AGENCY, Sum, available, whose
from muster_entitlements.errors import QuotaUsedUp, UseRefused
from muster_entitlements.handlers.adoption import FirstUse, count_adoption
from muster_entitlements.handlers.quotas import save_counts
from muster_entitlements.handlers.uses import record_uses
from muster_entitlements.queries.checks import find_question_of_use
from muster_entitlements.replies.usage import ConsumptionReply
from muster_entitlements.repository import quota_grants, usage, usage_replies
from muster_entitlements.repository.meters import find_feature
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.http.idempotency import IdempotencyMismatch


async def consume_once(uow: UnitOfWork, command: ConsumeFeature, key: str | None) -> tuple[bytes, bool]:
    """Count uses, once per key; returns the reply as JSON, and whether it is that of an earlier request.

    The unit of work has taken `lock_for_use`.

    Raises what `consume_feature` raises, or IdempotencyMismatch. A refusal is not kept, so its key can be used again.
    """
    if key is None:
        return (await consume_feature(uow, command)).model_dump_json().encode(), False
    asked = hashlib.sha256(repr(command).encode()).digest()
    kept = await usage_replies.find_reply(uow.connection, command.agency_id, key, uow.now.date())
    if kept is None:
        reply = (await consume_feature(uow, command)).model_dump_json().encode()
        kept = usage_replies.KeptReply(asked, reply)
        uow.writes.add(usage_replies.add_reply(command.agency_id, key, uow.now.date(), kept))
        return reply, False
    if kept.request != asked:
        raise IdempotencyMismatch(f"Idempotency-Key {key!r} was used with a different body")
    return kept.reply, True


async def consume_feature(uow: UnitOfWork, command: ConsumeFeature) -> ConsumptionReply:
    """Count uses, all of them or none. Raises FeatureUnknown, UseRefused, or QuotaUsedUp."""
    question, granted = await find_question_of_use(uow, command.feature)
    answer = check(question, uow.now)
    if answer.verdict is Verdict.REFUSED:
        raise UseRefused(command.feature, answer.reason.value)
    feature = await find_feature(uow.connection, command.feature, question.window, uow.now)
    zone, term_ends_at = (question.pool.zone, question.pool.ends_at) if question.pool else (zone_of(None), None)
    windows = {feature.key: question.window} if question.window else {}
    meter = Meter(zone, windows, {feature.key: feature}, term_ends_at=term_ends_at)
    period, quota, given, apart = meter.at(feature, uow.now, question.grants, question.began_at)
    own = Sum(
        agency_id=command.agency_id,
        feature=command.feature,
        subject_ref=command.subject_ref,
        starts_at=period.starts_at,
        ends_at=period.ends_at,
        used=command.amount,
        granted=command.amount if given else 0,
        days=bit_of(uow.now.astimezone(zone)),
    )
    whole = own._replace(subject_ref=WHOLE_AGENCY, granted=command.amount if given or apart else 0, days=0)
    totals = {each.subject_ref: each for each in await usage.add_to_sums(uow.connection, [own, whole], least=0)}
    total = totals[command.subject_ref if quota is None else whose(quota, command.subject_ref)]
    reply = ConsumptionReply(
        subject_ref=command.subject_ref,
        feature=command.feature,
        amount=command.amount,
        used=total.used,
        resets_at=period.ends_at,
    )
    if quota is not None:
        before = total._replace(used=total.used - command.amount)
        reply = await _charge(uow, reply, Charge(quota, before, command.amount, uow.now), granted=granted)
    adopted: list[FirstUse] = []
    if not question.adopted or question.is_first_use_on(uow.now.date()):
        user = command.agency_id, command.feature, command.subject_ref
        adopted = [FirstUse(each, uow.now) for each in await record_uses(uow, {user: uow.now}, "ConsumeFeature")]
    fresh = [each for each in totals.values() if each.fresh_days]
    await count_adoption(uow, fresh, adopted, {command.agency_id: zone})
    return reply


async def _charge(uow: UnitOfWork, reply: ConsumptionReply, charge: Charge, *, granted: bool) -> ConsumptionReply:
    """Charge uses to the quota, then to quota grants, and add to the reply what is left of both, as in a check.

    `granted`: there are unspent quota grants. Raises QuotaUsedUp if an enforced quota and they do not pay for all uses.
    """
    found = await quota_grants.find_grants_for(uow.connection, [charge.total]) if granted else []
    grants = {grant.grant_id: grant for grant in found if grant.is_active(charge.at)}
    count = charge.paid_by(list(grants.values()))
    quota = charge.quota
    if count.excess and quota.enforced:
        raise QuotaUsedUp(
            quota.limit,
            charge.total.used,
            charge.amount - count.excess,
            charge.amount,
            charge.total.ends_at,
            bool(grants),
        )
    await save_counts(uow, [[(charge, count)]])
    grants |= {grant.grant_id: grant for grant in count.spent}
    return reply.model_copy(
        update={
            "limit": quota.limit,
            "remaining": available(quota, count.total, list(grants.values()), charge.at),
            "would_refuse": quota.report_only and count.excess > 0,
        }
    )
