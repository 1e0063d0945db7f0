"""Trials that each seat begins by itself: their ends, and the notices before them.

A window has one deadline, at the next end. A step takes the seats in the order in which their trials began, stores its
place, and moves the deadline to the next end. So nothing is stored for a seat before it is activated.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

from muster_entitlements import publishing
from muster_entitlements.domain.days import DAY, midnight_of
from muster_entitlements.domain.windows import Window
from muster_entitlements.handlers.adoptions import ADOPTIONS
from muster_entitlements.handlers.trials import TOO_LATE
from muster_entitlements.repository import seat_trials
from muster_entitlements.repository.seat_trials import Place
from muster_entitlements.repository.windows import find_windows
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline

SEAT_TRIAL_ENDS = "seat-trial-ends"
SEAT_TRIALS_ENDING_SOON = "seat-trials-ending-soon"

# The most seats in a step.
STEP_SEATS = 5_000

# Sorts after the ID of every seat whose trial began at the same instant.
_LAST_SEAT = "~"


async def open_seat_trials(uow: UnitOfWork, windows: Sequence[Window], at: datetime) -> None:
    """Start with the trials that have not ended at `at`, when the windows open: the others were used before."""
    for window in windows:
        if window.seat_trial is not None:
            await _go_on(uow, window, window.seat_trial, Place(window.seats_begun_until(at), _LAST_SEAT), at)


async def go_on_with_seat_trials(uow: UnitOfWork, before: Window, after: Window, at: datetime) -> None:
    """Continue at a window's place after its trials have changed at `at`, which may be handled late.

    No end or notice that is still to be published is skipped, and nothing is published twice, except that a longer
    trial ends again, later.
    """
    if before.seat_trial is None:
        return
    notice = SEAT_TRIALS_ENDING_SOON, before.agency_id, before.window_id
    notice_at = await deadlines.find_instant(uow.connection, *notice)  # may be due, or parked
    noticed_until = uow.now if notice_at is None else min(uow.now, notice_at - timedelta.resolution)
    cancel_seat_trials(uow, [before])
    if after.seat_trial is None:
        return
    place = await seat_trials.find_place(uow.connection, after)
    if after.seat_trial > before.seat_trial:
        place = min(place, Place(after.seats_begun_until(at), _LAST_SEAT))
    await _go_on(uow, after, after.seat_trial, place, noticed_until)


async def begin_seat_trials(uow: UnitOfWork, agency_id: str, begun: Collection[datetime]) -> None:
    """Schedule the ends and notices of trials that began at these instants, unless earlier ones are scheduled."""
    if not begun:
        return
    for window in await seat_trials.list_seat_windows(uow.connection, agency_id):
        ends = [ends_at for ends_at in map(window.seat_ends_at, begun) if ends_at > uow.now]
        notices = [midnight_of(ends_at) - days * DAY for ends_at in ends for days in window.ends_soon_days]
        for kind, instants in (
            (SEAT_TRIAL_ENDS, ends),
            (SEAT_TRIALS_ENDING_SOON, [at for at in notices if at > uow.now]),
        ):
            if instants:
                deadlines.schedule_earlier(uow, Deadline(kind, agency_id, window.window_id, min(instants)))


def cancel_seat_trials(uow: UnitOfWork, windows: Iterable[Window]) -> None:
    """Cancel the deadlines of windows that are closed."""
    for window in windows:
        if window.seat_trial is not None:
            for kind in (SEAT_TRIAL_ENDS, SEAT_TRIALS_ENDING_SOON):
                deadlines.cancel(uow, window.agency_id, kind, [window.window_id])


async def on_seat_trial_ends_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Publish the next ends of seats' trials, each with its instant, in one step per window.

    Ends after the next scheduled adoption of a version wait for it: it may make the trials longer.
    """
    adopts_at = await deadlines.find_next_due(uow.connection, due[0].agency_id, ADOPTIONS)
    until = uow.now if adopts_at is None else min(uow.now, adopts_at)
    windows = await find_windows(uow.connection, due[0].agency_id, [deadline.subject for deadline in due])
    for deadline in due:
        window = windows[deadline.subject]
        begun_until = window.seats_begun_until(until)
        place = await seat_trials.find_place(uow.connection, window)
        begun = await seat_trials.list_begun(uow.connection, window.agency_id, place, begun_until, STEP_SEATS)
        for seat in begun:
            ends_at = window.seat_ends_at(seat.began_at)
            if ends_at > seat.assigned_at:  # an end from before its holder had the seat is not published
                ended = publishing.seat_trial_expired(window, seat.seat_id, seat.subject_ref, ends_at)
                uow.publish(ended, time=ends_at)
        if len(begun) == STEP_SEATS:
            place = Place(begun[-1].began_at, begun[-1].seat_id)
            deadlines.schedule(uow, [deadline])
        else:
            place = max(place, Place(begun_until, _LAST_SEAT))
            await _schedule_end(uow, window, place)
        await seat_trials.save_place(uow.connection, window, place)


async def on_seat_trials_ending_soon_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Publish, at midnight UTC, how many seats' trials end on each day for which the window sends a notice now."""
    windows = await find_windows(uow.connection, due[0].agency_id, [deadline.subject for deadline in due])
    for deadline in due:
        window = windows[deadline.subject]
        trial = window.seat_trial
        assert trial is not None
        if uow.now - deadline.due_at < TOO_LATE:
            seats = {}
            for days in window.ends_soon_days:
                day = deadline.due_at + days * DAY
                if not window.renewable and window.ends_at < day:
                    continue
                before = window.seats_begun_until(day + DAY - timedelta.resolution) + timedelta.resolution
                seats[days] = await seat_trials.count_begun(uow.connection, window.agency_id, day - trial, before)
            if ending := {days: count for days, count in seats.items() if count}:
                uow.publish(publishing.seat_trials_ending_soon(window, ending), time=deadline.due_at)
        await _schedule_notice(uow, window, trial, deadline.due_at)


async def _go_on(uow: UnitOfWork, window: Window, trial: timedelta, place: Place, noticed_until: datetime) -> None:
    await seat_trials.save_place(uow.connection, window, place)
    await _schedule_end(uow, window, place)
    await _schedule_notice(uow, window, trial, noticed_until)


async def _schedule_end(uow: UnitOfWork, window: Window, place: Place) -> None:
    began_at = await seat_trials.find_next_start(uow.connection, window.agency_id, place)
    if began_at is not None and (window.renewable or began_at < window.ends_at):
        due_at = window.seat_ends_at(began_at)
        deadlines.schedule(uow, [Deadline(SEAT_TRIAL_ENDS, window.agency_id, window.window_id, due_at)])


async def _schedule_notice(uow: UnitOfWork, window: Window, trial: timedelta, after: datetime) -> None:
    """Schedule the next midnight at which a notice is due."""
    coming = []
    for days in window.ends_soon_days:
        ends_from = midnight_of(after) + (days + 1) * DAY
        place = Place(ends_from - trial, "")
        began_at = await seat_trials.find_next_start(uow.connection, window.agency_id, place)
        if began_at is not None and (ends_at := window.seat_ends_at(began_at)) >= ends_from:
            coming.append(midnight_of(ends_at) - days * DAY)
    if coming:
        deadlines.schedule(uow, [Deadline(SEAT_TRIALS_ENDING_SOON, window.agency_id, window.window_id, min(coming))])
