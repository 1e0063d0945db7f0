"""The command that accepts the data-use terms."""

from muster_enrollment import publishing
from muster_enrollment.commands import AcceptDataUseTerms
from muster_enrollment.domain import rules
from muster_enrollment.domain.facts import Acceptance, ContactRole
from muster_enrollment.handlers.contacts import replace_contact, schedule_signer_erasure
from muster_enrollment.handlers.standing import current_standing, record_audit, settle_and_save
from muster_enrollment.replies import AcceptanceReply
from muster_enrollment.repository.standings import add_acceptance
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.identifiers import new_id


async def accept_data_use_terms(uow: UnitOfWork, command: AcceptDataUseTerms) -> AcceptanceReply:
    """Record that an agency accepted a version of the data-use terms. The signer of an earlier version is erased.

    If no enrollment is live, the signer is kept for a limited time, so that one can be submitted.
    """
    rules.check_address("signer.email", command.signer.email)
    before = await current_standing(uow, command.agency_id)
    acceptance = Acceptance(
        acceptance_id=new_id("acc", uow.now), terms_version=command.terms_version, accepted_at=uow.now
    )
    accepted = rules.accept_terms(before, acceptance)
    signer_ref = new_id("con", uow.now)
    await replace_contact(uow, command.agency_id, signer_ref, ContactRole.SIGNER, command.signer)
    if before.live is None:
        schedule_signer_erasure(uow, command.agency_id, signer_ref)
    await add_acceptance(uow.connection, command.agency_id, acceptance, signer_ref, command.evidence_sha256)
    uow.publish(publishing.data_use_terms_accepted(command.agency_id, acceptance, signer_ref, command.evidence_sha256))
    after = settle_and_save(uow, accepted)
    record_audit(
        uow,
        "AcceptDataUseTerms",
        before,
        after,
        subject=acceptance.acceptance_id,
        changes={"terms_version": acceptance.terms_version, "evidence_sha256": command.evidence_sha256},
    )
    return AcceptanceReply.of(command.agency_id, acceptance, signer_ref)
