"""Decisions about windows: extend a trial, end it early, or correct its start."""

from muster_entitlements import publishing
from muster_entitlements.commands import CorrectWindowStart, EndWindow, ExtendWindow
from muster_entitlements.domain import windows as rules
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.windows import Extension, Window
from muster_entitlements.errors import WindowUnknown
from muster_entitlements.handlers.lookups import known_pool
from muster_entitlements.handlers.quota_terms import tell_uses
from muster_entitlements.handlers.snapshots import publish_agency
from muster_entitlements.handlers.trials import reschedule_trial
from muster_entitlements.replies import WindowReply
from muster_entitlements.repository import pools, windows
from muster_runtime.database.transactions import Connection, UnitOfWork
from muster_runtime.observability import audit


async def extend_window(uow: UnitOfWork, command: ExtendWindow) -> WindowReply:
    """Extend a trial, once.

    Raises PoolUnknown, WindowUnknown, WindowWithoutTrial, WindowOver, WindowExtendedAlready, or InvalidInput.
    """
    pool, before = await _known_window(uow, command.agency_id, command.window_id)
    after = rules.extend(before, pool, uow.now, command.end)
    extension = Extension(after.agency_id, after.window_id, after.feature, before.ends_at, after.ends_at)
    uow.publish(publishing.window_extended(extension))
    return await _save(uow, "ExtendWindow", before, after, command.reason)


async def end_window(uow: UnitOfWork, command: EndWindow) -> WindowReply:
    """End a trial early. Raises PoolUnknown, WindowUnknown, WindowWithoutTrial, WindowOver, or InvalidInput."""
    pool, before = await _known_window(uow, command.agency_id, command.window_id)
    after = rules.end_early(before, pool, uow.now, command.end)
    uow.publish(publishing.window_changed(after))
    return await _save(uow, "EndWindow", before, after, command.reason)


async def correct_window_start(uow: UnitOfWork, command: CorrectWindowStart) -> WindowReply:
    """Move a trial. Raises PoolUnknown, WindowUnknown, WindowWithoutTrial, WindowOver, or InvalidInput."""
    pool, before = await _known_window(uow, command.agency_id, command.window_id)
    after = rules.correct_start(before, pool, uow.now, command.start)
    uow.publish(publishing.window_changed(after))
    return await _save(uow, "CorrectWindowStart", before, after, command.reason)


async def find_revision(connection: Connection, agency_id: str, window_id: str) -> int:
    """The revision of a window; 0 if there is none."""
    return await windows.find_revision(connection, agency_id, window_id) or 0


async def _known_window(uow: UnitOfWork, agency_id: str, window_id: str) -> tuple[Pool, Window]:
    pool = await known_pool(uow, agency_id)
    window = (await windows.find_windows(uow.connection, agency_id, [window_id])).get(window_id)
    if window is None or window.enrollment_id != pool.enrollment_id:
        raise WindowUnknown(agency_id, window_id)
    return pool, window


async def _save(uow: UnitOfWork, command: str, before: Window, after: Window, reason: str) -> WindowReply:
    await windows.save_change(uow.connection, after)
    await pools.save_revision(uow.connection, after.agency_id)
    await publish_agency(uow, after.agency_id)
    await tell_uses(uow, after.agency_id)
    reschedule_trial(uow, before, after)
    audit.record(
        uow,
        command=command,
        agency_id=after.agency_id,
        subject=after.window_id,
        before={"starts_at": before.starts_at, "ends_at": before.ends_at},
        after={"starts_at": after.starts_at, "ends_at": after.ends_at},
        reason=reason,
    )
    return WindowReply.of(after, uow.now)
