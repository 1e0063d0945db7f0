"""Turns events of enrollment and billing into an agency's seat pool and windows, and resizes the pool.

The two topics have no order between them. So billing's facts are stored per term, and `_apply_terms` applies them to
the pool whenever either side has something new. The result is the same whichever arrives first.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from muster_contracts.billing import RenewalDecided, RenewalDecision, TermEnded, TermEndReason, TermStarted
from muster_contracts.enrollment import AgencyEnrolled, AgencyReinstated, AgencySuspended, AgencyWithdrawn
from muster_contracts.entitlements import SeatRevocationReason
from muster_entitlements import publishing
from muster_entitlements.commands import ResizePool
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.windows import Window, used_beyond
from muster_entitlements.errors import CapBelowUse, TermRenewedAlready, TermUnknown
from muster_entitlements.handlers.adoption import move_summary
from muster_entitlements.handlers.closings import close_seats
from muster_entitlements.handlers.lookups import known_pool
from muster_entitlements.handlers.quota_terms import tell_uses
from muster_entitlements.handlers.rollouts import cancel_next_term, extend_windows, schedule_next_term
from muster_entitlements.handlers.seat_trials import cancel_seat_trials, open_seat_trials
from muster_entitlements.handlers.snapshots import publish_agency
from muster_entitlements.handlers.trials import cancel_graces, cancel_trials, schedule_trials
from muster_entitlements.replies import PoolReply
from muster_entitlements.repository import catalogs, facts, pools, windows
from muster_entitlements.repository.catalogs import Adoption
from muster_entitlements.repository.continued_trials import add_continued_trials, remove_continued_trials
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.identifiers import new_id
from muster_runtime.messaging.events import Received
from muster_runtime.observability import audit

_log = structlog.get_logger(__name__)


async def on_agency_enrolled(uow: UnitOfWork, events: Sequence[Received[AgencyEnrolled]]) -> None:
    """Open the pool of seats and the feature windows of an enrollment, once: a repetition only ends a suspension."""
    for received in events:
        enrolled, cause = received.data, received.envelope.id
        facts.add_event(uow, enrolled.enrollment_id, received.envelope)
        previous = await pools.find_pool(uow.connection, enrolled.agency_id)
        if previous is not None and await _is_repeated(uow, previous, enrolled):
            _log.warning("enrollment_repeated", agency_id=enrolled.agency_id, enrollment_id=enrolled.enrollment_id)
            await pools.save_suspension(uow.connection, enrolled.agency_id, enrolled.enrollment_id, suspended=False)
            await publish_agency(uow, enrolled.agency_id, cause)
            continue
        if previous is not None:
            # Billing's event that the earlier term ended may arrive later.
            previous = await close_seats(uow, previous, SeatRevocationReason.TERM_ENDED, cause)
            closed_at = min(enrolled.starts_at, uow.now, previous.ends_at)
            await _close_windows(uow, previous, closed_at)
        pool = Pool(
            agency_id=enrolled.agency_id,
            enrollment_id=enrolled.enrollment_id,
            starts_at=enrolled.starts_at,
            ends_at=enrolled.ends_at,
            suspended=False,
            withdrawn_at=None,
            ended=False,
            cap=enrolled.seats,
            in_use=0,
            limit_met=False,
            revision=previous.revision + 1 if previous else await pools.find_first_revision(uow.connection),
            generation=previous.generation if previous else 1,
            revoking=previous.revoking if previous else 0,
            time_zone=enrolled.time_zone,
        )
        await pools.save_pool(uow.connection, pool)
        if enrolled.continues:
            await _continue_trials(uow, pool, enrolled.continues)
        await _open_windows(uow, pool, cause)
        await _apply_terms(uow, pool.agency_id, pool.enrollment_id, cause)
        await publish_agency(uow, pool.agency_id, cause)
        if previous is not None:
            await tell_uses(uow, pool.agency_id, cause)
            if previous.time_zone != pool.time_zone:
                await move_summary(uow, pool.agency_id, previous.zone, pool.zone)


async def on_agency_suspended(uow: UnitOfWork, events: Sequence[Received[AgencySuspended]]) -> None:
    """Block the use of seats; people keep them."""
    for received in events:
        suspended = received.data
        facts.add_event(uow, suspended.enrollment_id, received.envelope)
        await pools.save_suspension(uow.connection, suspended.agency_id, suspended.enrollment_id, suspended=True)
        await publish_agency(uow, suspended.agency_id, received.envelope.id)


async def on_agency_reinstated(uow: UnitOfWork, events: Sequence[Received[AgencyReinstated]]) -> None:
    """Allow the use of seats again."""
    for received in events:
        reinstated = received.data
        facts.add_event(uow, reinstated.enrollment_id, received.envelope)
        await pools.save_suspension(uow.connection, reinstated.agency_id, reinstated.enrollment_id, suspended=False)
        await publish_agency(uow, reinstated.agency_id, received.envelope.id)


async def on_agency_withdrawn(uow: UnitOfWork, events: Sequence[Received[AgencyWithdrawn]]) -> None:
    """Start to revoke all seats of an agency that has left, and close its windows."""
    for received in events:
        withdrawn = received.data
        agency_id, enrollment_id, at = withdrawn.agency_id, withdrawn.enrollment_id, withdrawn.withdrawn_at
        facts.add_event(uow, enrollment_id, received.envelope)
        if not await pools.save_withdrawal(uow.connection, agency_id, enrollment_id, at):
            continue  # it left before it was ever active
        pool = await pools.find_pool(uow.connection, agency_id)
        assert pool is not None  # it was just withdrawn
        await close_seats(uow, pool, SeatRevocationReason.AGENCY_WITHDRAWN, received.envelope.id)
        await _close_windows(uow, pool, at)
        await publish_agency(uow, agency_id, received.envelope.id)


async def on_term_started(uow: UnitOfWork, events: Sequence[Received[TermStarted]]) -> None:
    """Record which enrollment a term belongs to: billing's later events name only the term."""
    await pools.add_terms(uow.connection, [received.data for received in events])
    for received in events:
        facts.add_event(uow, received.data.term_id, received.envelope)


async def on_renewal_decided(uow: UnitOfWork, events: Sequence[Received[RenewalDecided]]) -> None:
    """Extend the pool and its term-long windows to the end of an accepted renewal."""
    for received in events:
        decided = received.data
        facts.add_event(uow, decided.term_id, received.envelope)
        if decided.decision != RenewalDecision.ACCEPTED:
            continue
        enrollment_id = await pools.save_renewal(
            uow.connection, decided.agency_id, decided.term_id, decided.next_ends_at
        )
        if enrollment_id is None:
            raise TermUnknown(decided.agency_id, decided.term_id)
        await _apply_terms(uow, decided.agency_id, enrollment_id, received.envelope.id)
        await publish_agency(uow, decided.agency_id, received.envelope.id)
        await tell_uses(uow, decided.agency_id, received.envelope.id)


async def on_term_ended(uow: UnitOfWork, events: Sequence[Received[TermEnded]]) -> None:
    """End the pool of a term that was completed and not renewed. Enrollment's events report withdrawals.

    Raises TermUnknown or TermRenewedAlready.
    """
    for received in events:
        ended = received.data
        facts.add_event(uow, ended.term_id, received.envelope)
        if ended.reason != TermEndReason.COMPLETED or ended.renewed:
            continue
        term = await pools.save_ended_term(uow.connection, ended.agency_id, ended.term_id)
        if term is None:
            raise TermUnknown(ended.agency_id, ended.term_id)
        enrollment_id, renewed_to = term
        if renewed_to is not None and await _is_open(uow, ended.agency_id, enrollment_id):
            # The end would revoke all seats for good.
            raise TermRenewedAlready(ended.agency_id, ended.term_id, renewed_to)
        await _apply_terms(uow, ended.agency_id, enrollment_id, received.envelope.id)
        await publish_agency(uow, ended.agency_id, received.envelope.id)


async def _is_open(uow: UnitOfWork, agency_id: str, enrollment_id: str) -> bool:
    """Whether the agency still has the pool of this enrollment, and not that of a later one."""
    pool = await pools.find_pool(uow.connection, agency_id)
    return pool is not None and pool.enrollment_id == enrollment_id and pool.withdrawn_at is None


async def resize_pool(uow: UnitOfWork, command: ResizePool) -> PoolReply:
    """Set the agreed number of seats; the same number changes nothing. Raises PoolUnknown or CapBelowUse."""
    pool = await known_pool(uow, command.agency_id)
    if command.cap < pool.in_use:
        raise CapBelowUse(command.cap, pool.in_use)
    if command.cap != pool.cap:
        limit_met = pool.limit_met and command.cap == pool.in_use
        await pools.save_cap(uow.connection, pool.agency_id, command.cap, limit_met=limit_met)
        uow.publish(publishing.seat_pool_resized(pool, command.cap))
        await publish_agency(uow, pool.agency_id)
    audit.record(
        uow,
        command="ResizePool",
        agency_id=pool.agency_id,
        before={"cap": pool.cap},
        after={"cap": command.cap},
    )
    return PoolReply.of(await known_pool(uow, command.agency_id), uow.now)


async def _is_repeated(uow: UnitOfWork, pool: Pool, enrolled: AgencyEnrolled) -> bool:
    """Whether the agency had this enrollment before: enrollment was restored, and enrolled it a second time.

    It may even be over, or followed by another one. Like billing's terms, its seats and windows stay as they are.
    """
    if pool.enrollment_id == enrolled.enrollment_id:
        return True
    return bool(await windows.list_windows(uow.connection, enrolled.agency_id, enrolled.enrollment_id))


async def _continue_trials(uow: UnitOfWork, pool: Pool, continues: Sequence[str]) -> None:
    """Count as used what the continued agencies have used of each trial, as far as their events are applied by now.

    The result is stored: neither their later windows nor another version of the catalog changes it.
    """
    continued, unknown = [], []
    for agency_id in continues:
        other = await pools.find_pool(uow.connection, agency_id)
        if other is None:
            unknown.append(agency_id)
            _log.warning("continued_agency_unknown", agency_id=agency_id, continued_by=pool.agency_id)
        else:
            continued.append(await windows.find_used_trials(uow.connection, agency_id, pool.starts_at, other.zone))
    own = await windows.find_used_trials(uow.connection, pool.agency_id, pool.starts_at, pool.zone)
    used = used_beyond(own, continued)
    await add_continued_trials(uow.connection, pool.agency_id, pool.enrollment_id, used)
    used_days = {feature: round(spent / timedelta(days=1), 3) for feature, spent in used.items()}
    audit.record(
        uow,
        command="ContinueTrials",
        agency_id=pool.agency_id,
        subject=pool.enrollment_id,
        after={"unknown": unknown, "used_days": used_days},
    )


async def _open_windows(uow: UnitOfWork, pool: Pool, cause: str) -> None:
    catalog = await catalogs.find_catalog(uow.connection, uow.now)
    used = await windows.find_used_trials(uow.connection, pool.agency_id, pool.starts_at, pool.zone)
    opened = [
        Window.open(new_id("win", uow.now), feature, pool, catalog.number, used.get(feature.key, timedelta()))
        for feature in catalog.features.values()
    ]
    await catalogs.save_adoption(uow.connection, pool.agency_id, Adoption(catalog.number, None))
    await windows.save_windows(uow.connection, opened)
    schedule_trials(uow, opened)
    await open_seat_trials(uow, opened, uow.now)
    for window in opened:
        uow.publish(publishing.window_opened(window), causation_id=cause)


async def _close_windows(uow: UnitOfWork, pool: Pool, at: datetime) -> None:
    agency_id, enrollment_id = pool.agency_id, pool.enrollment_id
    present = (await windows.list_windows(uow.connection, agency_id, enrollment_id)).values()
    cancel_graces(uow, present, at)
    cancel_seat_trials(uow, present)  # even if the window ends with the term: it has no seats anymore
    cancel_trials(uow, await windows.save_closed_windows(uow.connection, agency_id, enrollment_id, at))
    cancel_next_term(uow, agency_id)
    if at <= pool.starts_at:  # the term never began, so it continued no trials
        await remove_continued_trials(uow.connection, agency_id, enrollment_id)
    await uow.flush()  # a later enrollment may schedule its own in the same transaction


async def _apply_terms(uow: UnitOfWork, agency_id: str, enrollment_id: str, cause: str) -> None:
    pool = await pools.find_pool(uow.connection, agency_id)
    if pool is None or pool.enrollment_id != enrollment_id:
        return  # the enrollment has not arrived yet, or a later one has taken over the pool
    outlook = await pools.find_outlook(uow.connection, agency_id, enrollment_id)
    if outlook.renewed_to is not None and outlook.renewed_to > pool.ends_at:
        pool = await _extend(uow, pool, outlook.renewed_to, cause)
        await uow.flush()  # an end cancels what a renewal schedules
    if outlook.ended and not pool.ended:
        await pools.save_end(uow.connection, agency_id)
        await close_seats(uow, pool, SeatRevocationReason.TERM_ENDED, cause)
        await _close_windows(uow, pool, pool.ends_at)


async def _extend(uow: UnitOfWork, pool: Pool, renewed_to: datetime, cause: str) -> Pool:
    ends_at = min(renewed_to, pool.withdrawn_at) if pool.withdrawn_at else renewed_to
    await pools.save_extension(uow.connection, pool.agency_id, ends_at)
    if pool.ends_at <= uow.now:  # the renewal is late: the deadline found no next term
        schedule_next_term(uow, pool)
    adoption = await catalogs.find_adoption(uow.connection, pool.agency_id)
    extended = replace(pool, ends_at=ends_at)
    await extend_windows(uow, extended, adoption, cause)
    return extended
