"""The read side of use."""

from datetime import datetime

from muster_entitlements.domain.quotas import Period, QuotaGrant
from muster_entitlements.errors import FeatureUnknown, PoolUnknown
from muster_entitlements.replies.usage import SHOWN_BYTES, ParkedUsageReply, QuotaGrantReply, UsageSumReply
from muster_entitlements.repository import catalogs
from muster_entitlements.repository.meters import find_last, find_meters
from muster_entitlements.repository.usage import find_last_period
from muster_runtime.database.transactions import Connection
from muster_runtime.pagination import Page, Pagination


async def list_parked_usage(connection: Connection, page: Pagination) -> Page[ParkedUsageReply]:
    """Records that could not be counted, oldest first. Values may be long, so only what is shown of them is read."""
    rows = await connection.fetch(
        """
        select
            id, kafka_partition as partition, kafka_offset as offset, parked_at, reason,
            substring(key, 1, $3) as key, header_names,
            array(
                select substring(v.content, 1, $3)
                from unnest(header_values) with ordinality as v (content, place)
                order by v.place
            ) as header_values,
            substring(value, 1, $3) as value
        from usage_parked
        where id > coalesce($1::bigint, 0)
        order by id
        limit $2
        """,
        page.after_id,
        page.rows,
        SHOWN_BYTES + 1,
    )
    return page.make([ParkedUsageReply.of(row) for row in rows], key=lambda record: str(record.id))


async def list_quota_grants(connection: Connection, agency_id: str, page: Pagination) -> Page[QuotaGrantReply]:
    """An agency's quota grants, spent or not, oldest first."""
    rows = await connection.fetch(
        """
        select agency_id, grant_id, feature, subject_ref, amount, spent, priority, starts_at, ends_at
        from quota_grant
        where agency_id = $1 and grant_id > $2
        order by grant_id
        limit $3
        """,
        agency_id,
        page.after or "",
        page.rows,
    )
    return page.make([QuotaGrantReply.of(QuotaGrant(**row)) for row in rows], key=lambda grant: grant.grant_id)


async def list_usage(
    connection: Connection, agency_id: str, feature: str, page: Pagination, now: datetime, at: datetime
) -> Page[UsageSumReply]:
    """How much an agency's people used a feature in the period of an instant: first all of them, then each subject.

    Raises PoolUnknown or FeatureUnknown.
    """
    catalog = await catalogs.find_catalog(connection, now)
    meter = (await find_meters(connection, {agency_id: ()}, now, catalog)).get(agency_id)
    if meter is None:
        raise PoolUnknown(agency_id)
    if feature not in meter.features and not await find_last(connection, {feature}, catalog):
        raise FeatureUnknown(feature, catalog.nearest(feature))
    period = meter.period(feature, now)
    if at < now:
        period = await _find_period(connection, agency_id, feature, at, meter.period(feature, at), period)
    rows = await connection.fetch(
        """
        select feature, nullif(subject_ref, '') as subject_ref, used, granted, excess
        from usage_sum
        where agency_id = $1 and feature = $2 and starts_at = $3 and ($4::text is null or subject_ref > $4)
        order by usage_sum.subject_ref
        limit $5
        """,
        agency_id,
        feature,
        period.starts_at,
        page.after,
        page.rows,
    )
    sums = [UsageSumReply(**row, starts_at=period.starts_at, ends_at=period.ends_at) for row in rows]
    return page.make(sums, key=lambda total: total.subject_ref or "sub_")


async def _find_period(
    connection: Connection, agency_id: str, feature: str, at: datetime, period: Period, current: Period
) -> Period:
    """The period in which use at a past instant was counted, of several the latest; `period` if none was.

    `period` is the instant's by the present window, with which it may have moved; use stays where it was counted.
    """
    found = await find_last_period(connection, agency_id, feature, at)
    if found is None or found[0].starts_at == current.starts_at:
        return period
    counted, next_starts_at = found
    ends_at = counted.ends_at
    if counted.starts_at >= period.starts_at:
        # The window was extended or moved since the last use of the period, or another one has replaced it.
        ends_at = max(ends_at, period.ends_at)
    elif at >= min(ends_at, current.starts_at):
        return period
    # At the instants of a later period, that one is shown, so the two together have all use once.
    later = [starts_at for starts_at in (next_starts_at, current.starts_at) if starts_at is not None and at < starts_at]
    return Period(counted.starts_at, min([ends_at, *later]))
