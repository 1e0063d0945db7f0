"""Enrollments: submits and withdraws them, and ends them with their last term."""

from collections.abc import Sequence

from muster_contracts.billing import TermEnded, TermEndReason
from muster_enrollment.commands import SubmitEnrollment, WithdrawAgency
from muster_enrollment.domain import rules
from muster_enrollment.domain.facts import ContactRole
from muster_enrollment.handlers.contacts import keep_contacts, replace_contact, schedule_contacts_erasure
from muster_enrollment.handlers.standing import (
    current_standing,
    publish_change,
    record_audit,
    save_now,
    settle,
    settle_and_save,
)
from muster_enrollment.replies import EnrollmentReply
from muster_enrollment.repository.agencies import list_known, lock_agency, sum_headcount
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.errors import PreconditionFailed
from muster_runtime.identifiers import new_id
from muster_runtime.messaging.events import Received


async def submit_enrollment(uow: UnitOfWork, command: SubmitEnrollment, seats_per_head: float) -> EnrollmentReply:
    """Submit an enrollment. It is active at once if no condition is missing.

    Its contact replaces the earlier contact, who is erased.
    """
    rules.check_address("contact.email", command.contact.email)
    rules.check_time_zone(command.time_zone)
    known = await list_known(uow.connection, command.continues) if command.continues else ()
    rules.check_continued(command.agency_id, command.continues, known)
    # An import that moves the agency to another branch waits for this transaction, or this transaction waits for it.
    await lock_agency(uow.connection, command.agency_id)
    before = await current_standing(uow, command.agency_id)
    contact_ref = new_id("con", uow.now)
    submitted = rules.submit(
        before,
        enrollment_id=new_id("enr", uow.now),
        seats=command.seats,
        requested_start=command.starts_at,
        contact_ref=contact_ref,
        now=uow.now,
        time_zone=command.time_zone,
        continues=command.continues,
    )
    headcount = await sum_headcount(uow.connection, command.agency_id)
    rules.check_seats(command.seats, headcount, seats_per_head)
    await keep_contacts(uow, command.agency_id)
    await replace_contact(uow, command.agency_id, contact_ref, ContactRole.ADMINISTRATOR, command.contact)
    publish_change(uow, before, submitted, uow.now)
    after = settle_and_save(uow, submitted)
    record_audit(
        uow,
        "SubmitEnrollment",
        before,
        after,
        changes={
            "seats": command.seats,
            "requested_start": command.starts_at,
            "time_zone": command.time_zone,
            "continues": list(command.continues),
        },
    )
    return EnrollmentReply.of(after, uow.now)


async def withdraw_agency(uow: UnitOfWork, command: WithdrawAgency) -> EnrollmentReply:
    """Withdraw an agency from the program. Raises PreconditionFailed if its enrollment changed since it was read."""
    before = await current_standing(uow, command.agency_id)
    after = rules.withdraw(before, command.reason, uow.now)
    version = before.enrollment.version if before.enrollment else 0
    if command.expected_version != version:
        raise PreconditionFailed(
            f"the enrollment of {command.agency_id} is at version {version}, not {command.expected_version}"
        )
    publish_change(uow, before, after, uow.now)
    settle_and_save(uow, after)
    await schedule_contacts_erasure(uow, command.agency_id)
    record_audit(uow, "WithdrawAgency", before, after, reason=command.reason)
    return EnrollmentReply.of(after, uow.now)


async def on_term_ended(uow: UnitOfWork, events: Sequence[Received[TermEnded]]) -> None:
    """End the enrollment whose term was completed without a renewal. A withdrawal has already ended it."""
    for received in events:
        ended, cause = received.data, received.envelope.id
        if ended.reason == TermEndReason.COMPLETED and not ended.renewed:
            before = await current_standing(uow, ended.agency_id, cause)
            after = settle(uow, rules.end_term(before, ended.enrollment_id, ended.ended_at), uow.now, cause)
            await save_now(uow, after)
            if before.live and not after.live:
                await schedule_contacts_erasure(uow, ended.agency_id)
