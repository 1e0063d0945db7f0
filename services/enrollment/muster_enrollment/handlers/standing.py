"""Steps that the handlers share: load an agency's standing as of now, and settle what a change leads to."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from muster_enrollment import publishing
from muster_enrollment.domain import rules
from muster_enrollment.domain.facts import Standing
from muster_enrollment.repository.standings import find_standing, save_enrollment
from muster_runtime.database import writes
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.observability import audit


async def current_standing(uow: UnitOfWork, agency_id: str, cause: str | None = None) -> Standing:
    """The agency's standing as of now, even if the scheduler has not yet handled a due deadline.

    `cause` is the ID of the event that requires it, if any. Raises NotFound if the register has no such agency.
    """
    return catch_up(uow, await find_standing(uow.connection, agency_id), uow.now, cause)


def catch_up(uow: UnitOfWork, standing: Standing, until: datetime, cause: str | None = None) -> Standing:
    """Settle the standing at each instant up to `until` at which an authorization started or stopped."""
    for instant in rules.boundaries(standing, until):
        standing = settle(uow, standing, instant, cause)
    return standing


def settle(uow: UnitOfWork, changed: Standing, at: datetime, cause: str | None = None) -> Standing:
    """Apply a change to the enrollment at an instant, and publish the result. Saves nothing."""
    settled = rules.settle(changed, at)
    publish_change(uow, changed, settled, at, cause)
    return settled


def settle_and_save(uow: UnitOfWork, changed: Standing) -> Standing:
    """Settle a command's change, and save the enrollment at the end: nothing in the transaction reads it later."""
    settled = settle(uow, changed, uow.now)
    if settled.enrollment:
        uow.writes.add(save_enrollment(settled.enrollment))
    return settled


async def save_now(uow: UnitOfWork, standing: Standing) -> None:
    """Save the enrollment at once, because a later event or deadline in the same transaction reads it."""
    if standing.enrollment:
        await writes.execute(uow.connection, save_enrollment(standing.enrollment))


def publish_change(
    uow: UnitOfWork, before: Standing, after: Standing, time: datetime, cause: str | None = None
) -> None:
    """Publish the enrollment's new state, if it changed."""
    if after.enrollment and (event := publishing.enrollment_changed(after.agency, before.enrollment, after.enrollment)):
        uow.publish(event, time=time, causation_id=cause)


def record_audit(
    uow: UnitOfWork,
    command: str,
    before: Standing,
    after: Standing,
    *,
    subject: str | None = None,
    changes: Mapping[str, object] = MappingProxyType({}),
    reason: str | None = None,
) -> None:
    """Record a command with the state before and after it. The default subject is the enrollment."""
    audit.record(
        uow,
        command=command,
        agency_id=after.agency.id,
        subject=subject or (after.enrollment.enrollment_id if after.enrollment else None),
        before={"state": before.state},
        after={"state": after.state, **changes},
        reason=reason,
    )
