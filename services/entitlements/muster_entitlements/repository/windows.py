"""Feature windows."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from muster_contracts.entitlements import AccessMode
from muster_entitlements.domain.windows import Extension, Window
from muster_runtime.database.transactions import Connection


async def add_windows(connection: Connection, windows: Sequence[Window]) -> None:
    """Add the windows that an enrollment opens."""
    await connection.execute(
        """
        insert into feature_window (
            window_id, agency_id, enrollment_id, feature, trial, mode,
            starts_at, ends_at, mode_after, monthly_quota_after, catalog_number
        )
        select * from unnest(
            $1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[], $6::text[],
            $7::timestamptz[], $8::timestamptz[], $9::text[], $10::integer[], $11::integer[]
        )
        """,
        [w.window_id for w in windows],
        [w.agency_id for w in windows],
        [w.enrollment_id for w in windows],
        [w.feature for w in windows],
        [w.trial for w in windows],
        [w.mode for w in windows],
        [w.starts_at for w in windows],
        [w.ends_at for w in windows],
        [w.mode_after for w in windows],
        [w.monthly_quota_after for w in windows],
        [w.catalog_number for w in windows],
    )


async def save_extensions(
    connection: Connection, agency_id: str, enrollment_id: str, ends_at: datetime
) -> list[Extension]:
    """Extend the windows that last as long as the term; returns those that changed."""
    rows = await connection.fetch(
        """
        update feature_window as changed
        set ends_at = $3
        from feature_window as previous
        where
            changed.agency_id = $1 and changed.enrollment_id = $2 and not changed.trial and changed.ends_at < $3
            and (previous.agency_id, previous.enrollment_id, previous.feature)
            = (changed.agency_id, changed.enrollment_id, changed.feature)
        returning
            changed.agency_id, changed.window_id, changed.feature, previous.ends_at as previous_ends_at, changed.ends_at
        """,
        agency_id,
        enrollment_id,
        ends_at,
    )
    return sorted((Extension(**row) for row in rows), key=lambda extension: extension.feature)


async def save_closed_windows(connection: Connection, agency_id: str, enrollment_id: str, at: datetime) -> list[str]:
    """End an enrollment's windows that would be open after `at`; returns their IDs."""
    rows = await connection.fetch(
        """
        update feature_window
        set ends_at = greatest(starts_at, $3)
        where agency_id = $1 and enrollment_id = $2 and ends_at > $3
        returning window_id
        """,
        agency_id,
        enrollment_id,
        at,
    )
    return [row["window_id"] for row in rows]


async def find_used_trials(connection: Connection, agency_id: str, before: datetime) -> dict[str, timedelta]:
    """How long an agency's trials of each feature were open before an instant, over all its enrollments."""
    rows = await connection.fetch(
        """
        select feature, sum(greatest(least(ends_at, $2) - starts_at, interval '0')) as used
        from feature_window
        where agency_id = $1 and trial
        group by feature
        """,
        agency_id,
        before,
    )
    return {row["feature"]: row["used"] for row in rows}


async def find_windows(connection: Connection, agency_id: str, window_ids: Sequence[str]) -> dict[str, Window]:
    """Windows of an agency by their IDs."""
    rows = await connection.fetch(
        """
        select
            window_id, agency_id, enrollment_id, feature, trial, mode,
            starts_at, ends_at, mode_after, monthly_quota_after, catalog_number
        from feature_window
        where agency_id = $1 and window_id = any($2::text[])
        """,
        agency_id,
        list(window_ids),
    )
    return {row["window_id"]: to_window(row) for row in rows}


def to_window(columns: Mapping[str, Any]) -> Window:
    """A window from its columns."""
    return Window(**{**columns, "mode": AccessMode(columns["mode"]), "mode_after": AccessMode(columns["mode_after"])})
