"""The seals of entitlements' audit trail."""

from typing import ClassVar

from muster_contracts.audit import SealedAudit
from muster_contracts.event import event


@event
class EntitlementsAuditSealed(SealedAudit):
    """Rows of entitlements' audit trail were sealed: from now on, any change to them is noticed.

    Emitted about a minute after a command, once for each agency with new rows.
    """

    event_type: ClassVar[str] = "muster.entitlements.AuditSealed.v1"
    topic: ClassVar[str] = "muster.entitlements.audit"
