"""The end of trials, and the notices before it."""

from collections.abc import Sequence
from datetime import timedelta

from muster_entitlements import publishing
from muster_entitlements.domain.windows import TRIAL_NOTICE_DAYS, Window
from muster_entitlements.repository.windows import find_windows
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline

TRIAL_ENDING_SOON = "trial-ending-soon"
TRIAL_EXPIRED = "trial-expired"

# A notice that is this late is skipped: the days that it states are no longer left.
_TOO_LATE = timedelta(days=1)


def schedule_trials(uow: UnitOfWork, windows: Sequence[Window]) -> None:
    """Schedule the notices and the ends of the windows that are trials, except empty ones."""
    trials = [window for window in windows if window.trial and window.starts_at < window.ends_at]
    deadlines.schedule(
        uow,
        [
            Deadline(TRIAL_ENDING_SOON, trial.agency_id, _notice(trial.window_id, days), due_at)
            for trial in trials
            for days, due_at in trial.notices().items()
        ]
        + [Deadline(TRIAL_EXPIRED, trial.agency_id, trial.window_id, trial.ends_at) for trial in trials],
    )


def cancel_trials(uow: UnitOfWork, agency_id: str, window_ids: Sequence[str]) -> None:
    """Cancel the notices and the ends of these windows."""
    notices = [_notice(window_id, days) for window_id in window_ids for days in TRIAL_NOTICE_DAYS]
    deadlines.cancel(uow, agency_id, TRIAL_ENDING_SOON, notices)
    deadlines.cancel(uow, agency_id, TRIAL_EXPIRED, window_ids)


async def on_trial_ending_soon_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Publish that trials end soon, except notices that an outage has made untrue."""
    notices = [deadline.subject.split("/") for deadline in due]
    windows = await find_windows(uow.connection, due[0].agency_id, [window_id for window_id, _ in notices])
    for deadline, (window_id, days) in zip(due, notices, strict=True):
        if uow.now - deadline.due_at < _TOO_LATE:
            uow.publish(publishing.trial_ending_soon(windows[window_id], int(days)), time=deadline.due_at)


async def on_trial_expired_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Publish that trials have ended."""
    windows = await find_windows(uow.connection, due[0].agency_id, [deadline.subject for deadline in due])
    for deadline in due:
        uow.publish(publishing.trial_expired(windows[deadline.subject]), time=deadline.due_at)


def _notice(window_id: str, days: int) -> str:
    return f"{window_id}/{days}"
