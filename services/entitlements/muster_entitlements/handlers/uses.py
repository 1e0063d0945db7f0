"""Records the use of features."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime

from muster_entitlements.commands import MarkUse
from muster_entitlements.domain.checks import Verdict, check
from muster_entitlements.domain.seats import SeatState
from muster_entitlements.errors import UseRefused
from muster_entitlements.handlers.seats import activate, record_change
from muster_entitlements.queries.checks import find_question
from muster_entitlements.replies import UseReply
from muster_entitlements.repository.seat_uses import FeatureUser, SeatUse, save_last_uses
from muster_runtime.database.transactions import Connection, UnitOfWork

Read = Callable[[], AbstractAsyncContextManager[Connection]]
Write = Callable[[], AbstractAsyncContextManager[UnitOfWork]]


async def mark_use(command: MarkUse, now: datetime, *, read: Read, write: Write) -> UseReply:
    """Record that a person uses a feature today. Only the first use of a day takes the agency's lock.

    Raises FeatureUnknown or UseRefused.
    """
    async with read() as connection:
        question = await find_question(connection, command.agency_id, command.subject_ref, command.feature, now)
    answer = check(question, now)
    if answer.verdict is Verdict.REFUSED:
        raise UseRefused(command.feature, answer.reason.value)
    if question.is_first_use_on(now.date()):
        async with write() as uow:
            await record_uses(uow, {(command.agency_id, command.feature, command.subject_ref): uow.now}, "MarkUse")
    return UseReply(subject_ref=command.subject_ref, used_on=now.date())


async def record_uses(uow: UnitOfWork, last: Mapping[FeatureUser, datetime], command: str) -> list[SeatUse]:
    """Store the last day on which each seat was used, so that it is not idle. The first use of a seat activates it.

    `last` is when each person last used each feature. Returns the uses of features that are new to their seats.
    """
    changed = await save_last_uses(uow.connection, last, uow.now)
    activated = list(dict.fromkeys(each.seat for each in changed if each.activates))
    if activated:
        await activate(uow, activated)
    for seat in activated:
        record_change(uow, command, seat, SeatState.ACTIVE)
    return [each for each in changed if each.first]
