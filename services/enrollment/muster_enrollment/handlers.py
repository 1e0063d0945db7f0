"""What happens on each command, event and deadline, within one transaction under the agency's lock."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType

from muster_contracts.billing import TermEnded, TermEndReason
from muster_enrollment import publishing, repository
from muster_enrollment.commands import (
    AcceptDataUseTerms,
    ImportRegister,
    RecordAtu,
    RevokeAtu,
    SubmitEnrollment,
    WithdrawAgency,
)
from muster_enrollment.domain import rules
from muster_enrollment.domain.facts import Acceptance, Authorization, Branch, ContactRole, Person, Standing
from muster_enrollment.register import Fault, RegisterRefused, check_against
from muster_enrollment.views import AcceptanceView, AuthorizationView, EnrollmentView, RegisterImported
from muster_runtime.database import writes
from muster_runtime.database.transactions import EVERY_AGENCY, UnitOfWork
from muster_runtime.errors import PreconditionFailed
from muster_runtime.identifiers import new_id
from muster_runtime.messaging.events import Received
from muster_runtime.observability import audit
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline

# At the start and the end of an authorization; the subject is its id and which of the two.
ATU = "atu"

# When a contact is needed no more; the subject is the contact. One whom a live enrollment needs has no such deadline.
CONTACT_ERASURE = "contact-erasure"


async def import_register(uow: UnitOfWork, command: ImportRegister) -> RegisterImported:
    """Insert the agencies that are new and update those that differ; raises RegisterRefused."""
    register = await repository.load_register(uow.connection)
    check_against(register, command.entries)
    changed = [entry for entry in command.entries if register.get(entry.agency.id) != entry.agency]
    await repository.save_agencies(uow.connection, [entry.agency for entry in changed])
    # Asked for after the update: it has waited for any submission that holds the entry.
    outside = {entry.agency.id: entry for entry in changed if entry.agency.branch is not Branch.EXECUTIVE}
    if live := await repository.live_among(uow.connection, outside):
        rule = "an agency with a live enrollment must be of the executive branch"
        raise RegisterRefused(
            [Fault(outside[agency].line, "branch", outside[agency].agency.branch, rule) for agency in live]
        )
    reply = RegisterImported(imported=len(changed), unchanged=len(command.entries) - len(changed))
    audit.record(
        uow,
        command="ImportRegister",
        agency_id=EVERY_AGENCY,
        after={"changed": [entry.agency.id for entry in changed]},
    )
    return reply


async def submit_enrollment(uow: UnitOfWork, command: SubmitEnrollment, seats_per_head: float) -> EnrollmentView:
    """Submit an enrollment; it is active at once when nothing else is missing.

    Its contact takes the place of the earlier one, who is erased.
    """
    rules.check_address("contact.email", command.contact.email)
    await repository.hold_agency(uow.connection, command.agency_id)
    before = await _load(uow, command.agency_id)
    contact_ref = new_id("con", uow.now)
    submitted = rules.submit(
        before,
        enrollment_id=new_id("enr", uow.now),
        seats=command.seats,
        requested_start=command.starts_at,
        contact_ref=contact_ref,
        now=uow.now,
    )
    headcount = await repository.headcount(uow.connection, command.agency_id)
    rules.check_seats(command.seats, headcount, seats_per_head)
    known = await repository.contacts(uow.connection, command.agency_id)
    deadlines.cancel(uow, command.agency_id, CONTACT_ERASURE, known)
    await _record_contact(uow, command.agency_id, contact_ref, ContactRole.ADMINISTRATOR, command.contact)
    _publish_transition(uow, before, submitted, uow.now)
    after = _settle(uow, submitted)
    _audit(
        uow, "SubmitEnrollment", before, after, changes={"seats": command.seats, "requested_start": command.starts_at}
    )
    return EnrollmentView.of(after, uow.now)


async def record_atu(uow: UnitOfWork, command: RecordAtu) -> AuthorizationView:
    """Record an authorization; it activates or reinstates at once, or when it comes into force."""
    rules.check_authorization(command.issuer, command.product, command.valid_from, command.valid_until, uow.now)
    before = await _load(uow, command.agency_id)
    authorization = Authorization(
        authorization_id=new_id("atu", uow.now),
        number=command.number,
        valid_from=command.valid_from,
        valid_until=command.valid_until,
    )
    authorized = rules.authorize(before, authorization)
    uow.writes.add(
        repository.insert_authorization(command.agency_id, authorization, command.issuer, command.product, uow.now)
    )
    deadlines.schedule(
        uow,
        [
            Deadline(ATU, command.agency_id, subject, instant)
            for subject, instant in _bounds(authorization).items()
            if instant > uow.now
        ],
    )
    uow.publish(publishing.recorded(command.agency_id, authorization))
    after = _settle(uow, authorized)
    _audit(
        uow,
        "RecordAtu",
        before,
        after,
        subject=authorization.authorization_id,
        changes={
            "number": authorization.number,
            "valid_from": authorization.valid_from,
            "valid_until": authorization.valid_until,
        },
    )
    return AuthorizationView.of(command.agency_id, authorization)


async def revoke_atu(uow: UnitOfWork, command: RevokeAtu) -> AuthorizationView:
    """Record that an authorization was taken back; it suspends when no other is in force."""
    before = await _load(uow, command.agency_id)
    revoked, authorization = rules.revoke(before, command.authorization_id, uow.now)
    await repository.revoke_authorization(uow.connection, authorization.authorization_id, command.reason, uow.now)
    deadlines.cancel(uow, command.agency_id, ATU, list(_bounds(authorization)))
    after = _settle(uow, revoked)
    _audit(uow, "RevokeAtu", before, after, subject=authorization.authorization_id, reason=command.reason)
    return AuthorizationView.of(command.agency_id, authorization)


async def accept_data_use_terms(uow: UnitOfWork, command: AcceptDataUseTerms) -> AcceptanceView:
    """Record that an agency accepted a version of the data-use terms; an earlier version's signer is erased.

    Where no enrollment is live the signer waits for one, for a time.
    """
    rules.check_address("signer.email", command.signer.email)
    before = await _load(uow, command.agency_id)
    acceptance = Acceptance(
        acceptance_id=new_id("acc", uow.now), terms_version=command.terms_version, accepted_at=uow.now
    )
    bound = rules.accept_terms(before, acceptance)
    signer_ref = new_id("con", uow.now)
    await _record_contact(uow, command.agency_id, signer_ref, ContactRole.SIGNER, command.signer)
    if before.live is None:
        _schedule_erasure(uow, command.agency_id, [signer_ref], rules.SIGNED_AHEAD)
    await repository.insert_acceptance(
        uow.connection, command.agency_id, acceptance, signer_ref, command.evidence_sha256
    )
    uow.publish(publishing.accepted(command.agency_id, acceptance, signer_ref, command.evidence_sha256))
    after = _settle(uow, bound)
    _audit(
        uow,
        "AcceptDataUseTerms",
        before,
        after,
        subject=acceptance.acceptance_id,
        changes={"terms_version": acceptance.terms_version, "evidence_sha256": command.evidence_sha256},
    )
    return AcceptanceView.of(command.agency_id, acceptance, signer_ref)


async def withdraw_agency(uow: UnitOfWork, command: WithdrawAgency) -> EnrollmentView:
    """Withdraw an agency from the program."""
    before = await _load(uow, command.agency_id)
    after = rules.withdraw(before, command.reason, uow.now)
    version = before.enrollment.version if before.enrollment else 0
    if command.expected_version != version:
        raise PreconditionFailed(
            f"the enrollment of {command.agency_id} is at version {version}, not {command.expected_version}"
        )
    _publish_transition(uow, before, after, uow.now)
    _settle(uow, after)
    await _say_farewell(uow, command.agency_id)
    _audit(uow, "WithdrawAgency", before, after, reason=command.reason)
    return EnrollmentView.of(after, uow.now)


async def on_term_ended(uow: UnitOfWork, run: Sequence[Received[TermEnded]]) -> None:
    """End the enrollment whose term ran out without a renewal; a withdrawal has ended it already."""
    for ended in (received.data for received in run):
        if ended.reason == TermEndReason.COMPLETED and not ended.renewed:
            before = await _load(uow, ended.agency_id)
            after = _take_effect(uow, rules.end_term(before, ended.ended_at), uow.now)
            await _save(uow, after)
            if before.live and not after.live:
                await _say_farewell(uow, ended.agency_id)


async def on_atu_bound(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """An agency's authorizations started or ended: tell what lapsed, and let it have its effect."""
    standing = await repository.load_standing(uow.connection, due[0].agency_id)
    ends = {f"{a.authorization_id}/ends": a for a in standing.authorizations}
    for deadline in due:
        ended = ends.get(deadline.subject)
        if ended and not standing.authorized(deadline.due_at):
            lapse = publishing.lapsed(deadline.agency_id, ended, deadline.due_at)
            uow.publish(lapse, time=deadline.due_at)
    standing = _catch_up(uow, standing, due[-1].due_at)
    await _save(uow, standing)


async def erase_contacts(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """No live enrollment has needed these contacts for their time: erase them."""
    await _erase(uow, due[0].agency_id, [deadline.subject for deadline in due], due[-1].due_at)


async def _load(uow: UnitOfWork, agency_id: str) -> Standing:
    """The agency's standing as of now, even where the scheduler has not come round to a deadline yet."""
    standing = await repository.load_standing(uow.connection, agency_id)
    return _catch_up(uow, standing, uow.now)


def _catch_up(uow: UnitOfWork, standing: Standing, until: datetime) -> Standing:
    for instant in rules.boundaries(standing, until):
        standing = _take_effect(uow, standing, instant)
    return standing


def _settle(uow: UnitOfWork, changed: Standing) -> Standing:
    """Let a command's change have its effect on the enrollment, and save that at the end: nothing reads it before."""
    settled = _take_effect(uow, changed, uow.now)
    if settled.enrollment:
        uow.writes.add(repository.save_enrollment(settled.enrollment))
    return settled


def _take_effect(uow: UnitOfWork, changed: Standing, at: datetime) -> Standing:
    settled = rules.settle(changed, at)
    _publish_transition(uow, changed, settled, at)
    return settled


async def _save(uow: UnitOfWork, standing: Standing) -> None:
    """Save the enrollment now: a later event or deadline of the same transaction reads it."""
    if standing.enrollment:
        await writes.execute(uow.connection, repository.save_enrollment(standing.enrollment))


def _publish_transition(uow: UnitOfWork, before: Standing, after: Standing, time: datetime) -> None:
    if after.enrollment and (event := publishing.transition(after.agency, before.enrollment, after.enrollment)):
        uow.publish(event, time=time)


async def _record_contact(uow: UnitOfWork, agency_id: str, contact_ref: str, role: ContactRole, person: Person) -> None:
    """Record a person in a role, in the place of whoever had it."""
    await _erase(uow, agency_id, await repository.contacts(uow.connection, agency_id, (role,)), uow.now)
    await repository.insert_contact(uow.connection, agency_id, contact_ref, role, person, uow.now)
    uow.publish(publishing.contact(agency_id, contact_ref, role, person))


async def _erase(uow: UnitOfWork, agency_id: str, contact_refs: Sequence[str], at: datetime) -> None:
    for contact_ref in await repository.erase_contacts(uow.connection, contact_refs, at):
        uow.publish(publishing.erased(agency_id, contact_ref), time=at)


async def _say_farewell(uow: UnitOfWork, agency_id: str) -> None:
    """Have the agency's contacts erased after the messages that the end of its enrollment leads to."""
    _schedule_erasure(uow, agency_id, await repository.contacts(uow.connection, agency_id), rules.FAREWELL)


def _schedule_erasure(uow: UnitOfWork, agency_id: str, contact_refs: Sequence[str], patience: timedelta) -> None:
    """Have contacts erased after a time unless an enrollment is submitted before.

    It counts from now, and not from the end of an enrollment: after an outage the messages have yet to be sent.
    """
    due_at = uow.now + patience
    deadlines.schedule(uow, [Deadline(CONTACT_ERASURE, agency_id, ref, due_at) for ref in contact_refs])


def _bounds(authorization: Authorization) -> Mapping[str, datetime]:
    """The subjects of an authorization's two deadlines and their instants."""
    return {
        f"{authorization.authorization_id}/starts": authorization.valid_from,
        f"{authorization.authorization_id}/ends": authorization.valid_until,
    }


def _audit(
    uow: UnitOfWork,
    command: str,
    before: Standing,
    after: Standing,
    *,
    subject: str | None = None,
    changes: Mapping[str, object] = MappingProxyType({}),
    reason: str | None = None,
) -> None:
    """Record a command with the state before and after it; its subject is the enrollment unless given."""
    audit.record(
        uow,
        command=command,
        agency_id=after.agency.id,
        subject=subject or (after.enrollment.enrollment_id if after.enrollment else None),
        before={"state": before.state},
        after={"state": after.state, **changes},
        reason=reason,
    )
