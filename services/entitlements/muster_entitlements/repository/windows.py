"""Feature windows."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from muster_contracts.entitlements import AccessMode, Anchor
from muster_entitlements.domain.days import open_for, zone_of
from muster_entitlements.domain.windows import Extension, Window
from muster_runtime.database.transactions import Connection
from muster_runtime.pacing import Pace

_FIELDS = tuple(field.name for field in fields(Window))

# The columns of a window; the table's alias is w.
COLUMNS = ", ".join(f"w.{name}" for name in _FIELDS)

# The same under names that do not collide with the columns of other tables.
NAMED_COLUMNS = ", ".join(f"w.{name} as w_{name}" for name in _FIELDS)

_WINDOW = f"select {COLUMNS}"


async def save_windows(
    connection: Connection, windows: Sequence[Window], spent: Mapping[str, timedelta] | None = None
) -> None:
    """Store windows, which replace those of the same enrollment and feature.

    `spent` is how long replaced trials of a feature were open. It is added to what is stored, and counts as used.
    """
    spent = spent or {}
    await connection.execute(
        """
        insert into feature_window as w (
            window_id, agency_id, enrollment_id, feature, trial, mode,
            starts_at, ends_at, mode_after, monthly_quota_after, catalog_number, renewable,
            trial_before, anchor, seat_days, grace_days, ends_soon_days
        )
        select
            window_id, agency_id, enrollment_id, feature, trial, mode,
            starts_at, ends_at, mode_after, monthly_quota_after, catalog_number, renewable,
            spent, anchor, seat_days, grace_days, string_to_array(ends_soon_days, ',')::integer[]
        from unnest(
            $1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[], $6::text[],
            $7::timestamptz[], $8::timestamptz[], $9::text[], $10::integer[], $11::integer[], $12::boolean[],
            $13::interval[], $14::text[], $15::integer[], $16::integer[], $17::text[]
        ) as n (
            window_id, agency_id, enrollment_id, feature, trial, mode,
            starts_at, ends_at, mode_after, monthly_quota_after, catalog_number, renewable,
            spent, anchor, seat_days, grace_days, ends_soon_days
        )
        on conflict (agency_id, enrollment_id, feature) do update set
            trial_before = w.trial_before + excluded.trial_before,
            window_id = excluded.window_id,
            trial = excluded.trial,
            mode = excluded.mode,
            starts_at = excluded.starts_at,
            ends_at = excluded.ends_at,
            mode_after = excluded.mode_after,
            monthly_quota_after = excluded.monthly_quota_after,
            catalog_number = excluded.catalog_number,
            renewable = excluded.renewable,
            anchor = excluded.anchor,
            seat_days = excluded.seat_days,
            grace_days = excluded.grace_days,
            ends_soon_days = excluded.ends_soon_days,
            extended = w.extended and excluded.window_id = w.window_id,
            ended_early = w.ended_early and excluded.window_id = w.window_id,
            start_corrected = w.start_corrected and excluded.window_id = w.window_id,
            revision = case
                when excluded.window_id <> w.window_id then 1
                when
                    (
                        excluded.starts_at, excluded.ends_at, excluded.mode, excluded.mode_after,
                        excluded.monthly_quota_after, excluded.grace_days
                    ) is distinct from (
                        w.starts_at, w.ends_at, w.mode, w.mode_after, w.monthly_quota_after, w.grace_days
                    )
                    then w.revision + 1
                else w.revision
            end
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
        [w.renewable for w in windows],
        [spent.get(w.feature, timedelta()) for w in windows],
        [w.anchor for w in windows],
        [w.seat_days for w in windows],
        [w.grace_days for w in windows],
        [",".join(map(str, w.ends_soon_days)) for w in windows],
    )


async def save_change(connection: Connection, window: Window) -> None:
    """Save the start and the end that a decision has given a window."""
    await connection.execute(
        """
        update feature_window
        set starts_at = $4, ends_at = $5, extended = $6, ended_early = $7, start_corrected = $8, revision = $9
        where agency_id = $1 and enrollment_id = $2 and feature = $3
        """,
        window.agency_id,
        window.enrollment_id,
        window.feature,
        window.starts_at,
        window.ends_at,
        window.extended,
        window.ended_early,
        window.start_corrected,
        window.revision,
    )


async def list_windows(connection: Connection, agency_id: str, enrollment_id: str) -> dict[str, Window]:
    """The windows of an enrollment by feature."""
    rows = await connection.fetch(
        f"{_WINDOW} from feature_window as w where agency_id = $1 and enrollment_id = $2", agency_id, enrollment_id
    )
    return {row["feature"]: to_window(row) for row in rows}


async def list_open_pools_windows(connection: Connection) -> dict[str, dict[str, Window]]:
    """The windows of every current enrollment that is not over, by agency and feature."""
    rows = await connection.fetch(
        f"""
        {_WINDOW}
        from feature_window as w
        join pool as p on p.agency_id = w.agency_id and p.enrollment_id = w.enrollment_id
        where p.withdrawn_at is null and not p.ended
        """
    )
    found: dict[str, dict[str, Window]] = {}
    pace = Pace()
    for row in rows:
        found.setdefault(row["agency_id"], {})[row["feature"]] = to_window(row)
        await pace.keep()
    return found


async def save_extensions(
    connection: Connection, agency_id: str, enrollment_id: str, ends_at: datetime, features: Sequence[str]
) -> list[Extension]:
    """Extend the windows of features to an instant, if they end before it; returns the extensions."""
    rows = await connection.fetch(
        """
        update feature_window as changed
        set ends_at = $3
        from feature_window as previous
        where
            changed.agency_id = $1 and changed.enrollment_id = $2 and changed.ends_at < $3
            and changed.feature = any($4::text[])
            and (previous.agency_id, previous.enrollment_id, previous.feature)
            = (changed.agency_id, changed.enrollment_id, changed.feature)
        returning
            changed.agency_id, changed.window_id, changed.feature, previous.ends_at as previous_ends_at, changed.ends_at
        """,
        agency_id,
        enrollment_id,
        ends_at,
        features,
    )
    return sorted((Extension(**row) for row in rows), key=lambda extension: extension.feature)


async def save_closed_windows(connection: Connection, agency_id: str, enrollment_id: str, at: datetime) -> list[Window]:
    """End an enrollment's windows that would be open after `at`; returns them."""
    rows = await connection.fetch(
        f"""
        update feature_window as w
        set ends_at = greatest(starts_at, $3)
        where agency_id = $1 and enrollment_id = $2 and ends_at > $3
        returning {COLUMNS}
        """,  # noqa: S608
        agency_id,
        enrollment_id,
        at,
    )
    return [to_window(row) for row in rows]


async def find_used_trials(
    connection: Connection, agency_id: str, before: datetime, zone: ZoneInfo
) -> dict[str, timedelta]:
    """How long an agency's trials of each feature were open before an instant, over all its enrollments.

    What the agencies that it continues have used is included.
    """
    rows = await connection.fetch(
        """
        select feature, trial, trial_before, starts_at, least(ends_at, $2) as ends_at
        from feature_window
        where agency_id = $1 and (trial or trial_before > interval '0')
        union all
        select feature, false, used, null, null
        from continued_trial
        where agency_id = $1
        """,
        agency_id,
        before,
    )
    used: dict[str, timedelta] = {}
    for row in rows:
        used[row["feature"]] = used.get(row["feature"], timedelta()) + _used(row, zone)
    return used


async def list_used_trials(connection: Connection) -> dict[str, dict[str, timedelta]]:
    """find_used_trials for every agency before its current term, by agency and feature."""
    rows = await connection.fetch(
        """
        select
            w.agency_id, w.feature, w.trial, w.trial_before, w.starts_at,
            least(w.ends_at, p.starts_at) as ends_at, p.time_zone
        from feature_window as w
        join pool as p using (agency_id)
        where w.trial or w.trial_before > interval '0'
        union all
        select agency_id, feature, false, used, null, null, null
        from continued_trial
        """
    )
    found: dict[str, dict[str, timedelta]] = {}
    for row in rows:
        used = found.setdefault(row["agency_id"], {})
        used[row["feature"]] = used.get(row["feature"], timedelta()) + _used(row, zone_of(row["time_zone"]))
    return found


def _used(row: Mapping[str, Any], zone: ZoneInfo) -> timedelta:
    used: timedelta = row["trial_before"]
    return used + open_for(row["starts_at"], row["ends_at"], zone) if row["trial"] else used


async def find_windows(connection: Connection, agency_id: str, window_ids: Sequence[str]) -> dict[str, Window]:
    """Windows of an agency by their IDs."""
    rows = await connection.fetch(
        f"{_WINDOW} from feature_window as w where agency_id = $1 and window_id = any($2::text[])",
        agency_id,
        list(window_ids),
    )
    return {row["window_id"]: to_window(row) for row in rows}


async def find_revision(connection: Connection, agency_id: str, window_id: str) -> int | None:
    """The revision of a window of an agency; None if there is none."""
    revision: int | None = await connection.fetchval(
        "select revision from feature_window where agency_id = $1 and window_id = $2", agency_id, window_id
    )
    return revision


def to_window(row: Mapping[str, Any], prefix: str = "") -> Window:
    """A window from its COLUMNS, or with the prefix `w_` from its NAMED_COLUMNS."""
    columns = {name: row[f"{prefix}{name}"] for name in _FIELDS}
    return Window(
        **{
            **columns,
            "mode": AccessMode(columns["mode"]),
            "mode_after": AccessMode(columns["mode_after"]),
            "anchor": Anchor(columns["anchor"]),
            "ends_soon_days": tuple(columns["ends_soon_days"]),
        }
    )
