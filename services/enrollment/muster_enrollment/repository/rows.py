"""Converts table rows to objects of the domain."""

from asyncpg import Record

from muster_contracts.enrollment import SuspensionReason
from muster_enrollment.domain.facts import Agency, Branch, Closure, Enrollment, State, Term

# An agency's row; the table's alias is a.
AGENCY = 'a.*, array(select domain from agency_domain where holder = a.id order by domain collate "C") as domains'


def agency(row: Record) -> Agency:
    """Convert a row of AGENCY."""
    return Agency(
        id=row["id"],
        name=row["name"],
        parent=row["parent"],
        treasury_code=row["treasury_code"],
        domains=tuple(row["domains"]),
        headcount=row["headcount"],
        branch=Branch(row["branch"]),
    )


def enrollment(row: Record) -> Enrollment:
    return Enrollment(
        enrollment_id=row["enrollment_id"],
        agency_id=row["agency_id"],
        number=row["number"],
        state=State(row["state"]),
        seats=row["seats"],
        requested_start=row["requested_start"],
        contact_ref=row["contact_ref"],
        submitted_at=row["submitted_at"],
        changed_at=row["changed_at"],
        term=Term(row["starts_at"], row["ends_at"]) if row["starts_at"] else None,
        suspension_reason=SuspensionReason(row["suspension_reason"]) if row["suspension_reason"] else None,
        closure=Closure(row["closed_at"], row["closing_reason"]) if row["closed_at"] else None,
        version=row["version"],
        time_zone=row["time_zone"],
        continues=tuple(row["continues"]),
    )
