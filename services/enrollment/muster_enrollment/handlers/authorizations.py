"""Authorizations to use (ATU): records and revokes them, and handles their start and end."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from muster_enrollment import publishing
from muster_enrollment.commands import RecordAtu, RevokeAtu
from muster_enrollment.domain import rules
from muster_enrollment.domain.facts import Authorization
from muster_enrollment.handlers.standing import catch_up, current_standing, record_audit, save_now, settle_and_save
from muster_enrollment.replies import AuthorizationReply
from muster_enrollment.repository.standings import add_authorization, find_standing, save_revocation
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.identifiers import new_id
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline

# The kind of deadline at which an authorization starts or ends; the subject is its ID and which of the two.
ATU = "atu"


async def record_atu(uow: UnitOfWork, command: RecordAtu) -> AuthorizationReply:
    """Record an authorization. It activates or reinstates the enrollment now, or when it comes into force.

    While facts are in doubt, it may have been recorded before and lost, so an end while it was in force is no lapse. An
    earlier end suspends once deadlines are handled again, so the start has a deadline even if it has passed.
    """
    rules.check_authorization(command.issuer, command.product, command.valid_from, command.valid_until, uow.now)
    before = await current_standing(uow, command.agency_id)
    authorization = Authorization(
        authorization_id=new_id("atu", uow.now),
        number=command.number,
        valid_from=command.valid_from,
        valid_until=command.valid_until,
        recorded_at=uow.now,
    )
    authorized = rules.authorize(before, authorization)
    uow.writes.add(add_authorization(command.agency_id, authorization, command.issuer, command.product))
    deadlines.schedule(
        uow,
        [
            Deadline(ATU, command.agency_id, subject, instant)
            for subject, instant in _bounds(authorization).items()
            if before.in_doubt or instant > uow.now
        ],
    )
    if before.in_doubt:
        ended = [each for each in before.authorizations if each.valid_until <= uow.now]
        followed = [_end(each) for each in ended if authorization.in_force(each.valid_until)]
        deadlines.cancel(uow, command.agency_id, ATU, followed)
    uow.publish(publishing.atu_recorded(command.agency_id, authorization))
    after = settle_and_save(uow, authorized)
    record_audit(
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
    return AuthorizationReply.of(command.agency_id, authorization)


async def revoke_atu(uow: UnitOfWork, command: RevokeAtu) -> AuthorizationReply:
    """Record that an authorization was revoked. The enrollment is suspended if no other is in force."""
    before = await current_standing(uow, command.agency_id)
    revoked, authorization = rules.revoke(before, command.authorization_id, uow.now)
    await save_revocation(uow.connection, authorization.authorization_id, command.reason, uow.now)
    deadlines.cancel(uow, command.agency_id, ATU, list(_bounds(authorization)))
    after = settle_and_save(uow, revoked)
    record_audit(uow, "RevokeAtu", before, after, subject=authorization.authorization_id, reason=command.reason)
    return AuthorizationReply.of(command.agency_id, authorization)


async def on_atu_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Publish the authorizations that lapsed, and settle the enrollment, after authorizations started or ended."""
    standing = await find_standing(uow.connection, due[0].agency_id)
    ends = {_end(a): a for a in standing.authorizations}
    for deadline in due:
        ended = ends.get(deadline.subject)
        if ended and standing.lapsed(deadline.due_at):
            lapse = publishing.atu_lapsed(deadline.agency_id, ended, deadline.due_at)
            uow.publish(lapse, time=deadline.due_at)
    await save_now(uow, catch_up(uow, standing, due[-1].due_at))


def _bounds(authorization: Authorization) -> Mapping[str, datetime]:
    """The subjects of an authorization's two deadlines and their instants."""
    return {
        f"{authorization.authorization_id}/starts": authorization.valid_from,
        _end(authorization): authorization.valid_until,
    }


def _end(authorization: Authorization) -> str:
    """The subject of the deadline at which an authorization ends."""
    return f"{authorization.authorization_id}/ends"
