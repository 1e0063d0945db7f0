"""The read side of adoption."""

import csv
import io
from dataclasses import dataclass, replace
from datetime import date, datetime

from muster_entitlements.domain.pools import Pool
from muster_entitlements.queries import known_pool
from muster_entitlements.replies.adoption import AdoptionDayReply, AdoptionReply, FeatureAdoptionReply, facts
from muster_entitlements.repository import adoption, catalogs
from muster_runtime.database.transactions import Connection
from muster_runtime.pagination import InvalidCursor, Page, Pagination

_BEFORE_ALL = ("", date.min)

# How many lines of an export are read, and written, at once.
EXPORT_LINES = 500

EXPORT_HEADER = ",".join(AdoptionDayReply.model_fields) + "\r\n"


async def find_adoption(connection: Connection, agency_id: str, now: datetime) -> AdoptionReply:
    """How many of an agency's people use each feature today. Raises PoolUnknown."""
    pool = await known_pool(connection, agency_id)
    today = now.astimezone(pool.zone).date()
    features = (await catalogs.find_catalog(connection, now)).features
    found = await adoption.find_adoption(connection, pool, today, features)
    return AdoptionReply(
        day=today,
        seats=pool.in_use,
        features=[FeatureAdoptionReply.of(each, pool.in_use) for each in found.values()],
    )


async def list_days(connection: Connection, agency_id: str, page: Pagination, now: datetime) -> Page[AdoptionDayReply]:
    """The same for each day of the term with use within 28 days, by feature and day. Raises PoolUnknown."""
    pool = await known_pool(connection, agency_id)
    after = _BEFORE_ALL if page.after is None else _place(page.after)
    found = await adoption.list_days(connection, agency_id, *_term(pool, now), after, page.rows)
    replies = [AdoptionDayReply.of(each, pool.in_use) for each in found]
    return page.make(replies, key=lambda each: f"{each.feature}/{each.day.isoformat()}")


@dataclass(frozen=True, slots=True)
class Export:
    """What is still to be exported: an agency's days within [first, last], by feature and day, beyond `after`."""

    pool: Pool
    first: date
    last: date
    after: tuple[str, date] = _BEFORE_ALL


async def begin_export(connection: Connection, agency_id: str, now: datetime) -> Export:
    """The export of the days of the term. Raises PoolUnknown."""
    pool = await known_pool(connection, agency_id)
    return Export(pool, *_term(pool, now))


async def export_days(connection: Connection, export: Export) -> tuple[str, Export | None]:
    """The next lines of an export as CSV, and what is still to be exported after them."""
    pool, first, last, after = export.pool, export.first, export.last, export.after
    found = await adoption.list_days(connection, pool.agency_id, first, last, after, EXPORT_LINES)
    written = io.StringIO()
    csv.writer(written).writerows(facts(each, pool.in_use).values() for each in found)
    more = len(found) == EXPORT_LINES
    return written.getvalue(), replace(export, after=(found[-1].feature, found[-1].day)) if more else None


def _term(pool: Pool, now: datetime) -> tuple[date, date]:
    """The days of the term until now."""
    first, today = (instant.astimezone(pool.zone).date() for instant in (pool.starts_at, now))
    return first, today


def _place(cursor: str) -> tuple[str, date]:
    feature, _, day = cursor.rpartition("/")
    try:
        return feature, date.fromisoformat(day)
    except ValueError:
        raise InvalidCursor("after: the cursor belongs to another list") from None
