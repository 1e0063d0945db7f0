"""Records the use of features."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime

from muster_entitlements.commands import MarkUse
from muster_entitlements.domain.checks import Verdict, check
from muster_entitlements.domain.seats import SeatState
from muster_entitlements.errors import UseRefused
from muster_entitlements.handlers.seats import activate, record_change
from muster_entitlements.queries.checks import find_question
from muster_entitlements.replies import UseReply
from muster_entitlements.repository import seats
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
    if question.used_on != now.date():
        async with write() as uow:
            await record_use(uow, command.agency_id, command.subject_ref, "MarkUse")
    return UseReply(subject_ref=command.subject_ref, used_on=now.date())


async def record_use(uow: UnitOfWork, agency_id: str, subject_ref: str, command: str) -> None:
    """Record a person's first use of a day. Their very first use activates the seat; a revoked seat stays revoked."""
    held = await seats.find_held(uow.connection, agency_id, [subject_ref])
    seat = held.get(subject_ref)
    if seat is None:
        return
    if seat.state is SeatState.ASSIGNED:
        await activate(uow, seat)
        record_change(uow, command, seat, SeatState.ACTIVE)
    elif seat.state is SeatState.ACTIVE:
        await seats.save_use(uow.connection, seat, uow.now.date())
