"""Announces that trials end soon, that they have ended, and that their grace has ended. Checks decide access."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from muster_entitlements import publishing
from muster_entitlements.domain.windows import Window
from muster_entitlements.repository.windows import find_windows
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline

TRIAL_ENDING_SOON = "trial-ending-soon"
TRIAL_EXPIRED = "trial-expired"
GRACE_ENDED = "grace-ended"

# A notice that is this late is skipped, because its number of days left would be wrong.
TOO_LATE = timedelta(days=1)


def schedule_trials(uow: UnitOfWork, windows: Sequence[Window]) -> None:
    """Schedule the notices and the ends of the windows that are trials, except empty ones."""
    for window in windows:
        deadlines.schedule(uow, _deadlines(window))


def reschedule_trial(uow: UnitOfWork, before: Window, after: Window) -> None:
    """Reschedule the deadlines that a change to a trial moves. Nothing is published twice; past notices are skipped."""
    was = _deadlines(before)
    will = [
        each for each in _deadlines(after) if each in was or each.kind != TRIAL_ENDING_SOON or each.due_at > uow.now
    ]
    kept = {(each.kind, each.subject) for each in will}
    for each in was:
        if (each.kind, each.subject) not in kept:
            deadlines.cancel(uow, each.agency_id, each.kind, [each.subject])
    deadlines.schedule(uow, [each for each in will if each not in was])


def cancel_trials(uow: UnitOfWork, windows: Sequence[Window]) -> None:
    """Cancel the notices and the ends of the windows that are trials."""
    for window in windows:
        if window.trial:
            notices = [_notice(window.window_id, days) for days in window.ends_soon_days]
            deadlines.cancel(uow, window.agency_id, TRIAL_ENDING_SOON, notices)
            deadlines.cancel(uow, window.agency_id, TRIAL_EXPIRED, [window.window_id])
            deadlines.cancel(uow, window.agency_id, GRACE_ENDED, [window.window_id])


def cancel_graces(uow: UnitOfWork, windows: Iterable[Window], at: datetime) -> None:
    """Cancel the deadlines of grace periods that would last beyond `at`."""
    for window in windows:
        if window.grace_ends_at is not None and window.grace_ends_at > at:
            deadlines.cancel(uow, window.agency_id, GRACE_ENDED, [window.window_id])


async def find_announced_ends(uow: UnitOfWork, windows: Iterable[Window], after: datetime) -> dict[str, datetime]:
    """The last end of each trial or its grace after an instant that is already announced, by feature."""
    found: dict[str, datetime] = {}
    for window in windows:
        for each in _deadlines(window):
            if each.kind != TRIAL_ENDING_SOON and after < each.due_at <= uow.now:
                waits = await deadlines.find_instant(uow.connection, each.kind, each.agency_id, each.subject)
                if waits is None:
                    found[window.feature] = each.due_at
    return found


async def on_trial_ending_soon_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Publish that trials end soon, except notices that are no longer true after an outage."""
    notices = [deadline.subject.split("/") for deadline in due]
    windows = await find_windows(uow.connection, due[0].agency_id, [window_id for window_id, _ in notices])
    for deadline, (window_id, days) in zip(due, notices, strict=True):
        if uow.now - deadline.due_at < TOO_LATE:
            uow.publish(publishing.trial_ending_soon(windows[window_id], int(days)), time=deadline.due_at)


async def on_trial_expired_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Publish that trials have ended."""
    windows = await find_windows(uow.connection, due[0].agency_id, [deadline.subject for deadline in due])
    for deadline in due:
        uow.publish(publishing.trial_expired(windows[deadline.subject]), time=deadline.due_at)


async def on_grace_ended_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Publish that the access has changed at the end of the grace after trials."""
    windows = await find_windows(uow.connection, due[0].agency_id, [deadline.subject for deadline in due])
    for deadline in due:
        uow.publish(publishing.access_changed(windows[deadline.subject], deadline.due_at), time=deadline.due_at)


def _deadlines(window: Window) -> list[Deadline]:
    if not window.trial or not window.lasts:
        return []
    found = [
        Deadline(TRIAL_ENDING_SOON, window.agency_id, _notice(window.window_id, days), due_at)
        for days, due_at in window.notices().items()
    ]
    found.append(Deadline(TRIAL_EXPIRED, window.agency_id, window.window_id, window.ends_at))
    if window.grace_ends_at is not None:
        found.append(Deadline(GRACE_ENDED, window.agency_id, window.window_id, window.grace_ends_at))
    return found


def _notice(window_id: str, days: int) -> str:
    return f"{window_id}/{days}"
