"""`muster erase-lost`: erases people that a restore lost but the directory topics and notify still have."""

from typing import Annotated
from urllib.parse import quote

import typer

from muster_operator.clients import client_of_postgres
from muster_operator.databases.reading import reading
from muster_operator.failures import BadInput
from muster_operator.output import Answer
from muster_operator.parked import Agency, Reason
from muster_operator.service import agency_path
from muster_operator.target import Target, on_target

# By the prefix of a reference: the service that erases it, its path there, and the agencies that have it.
_OWNERS = {
    "con": ("enrollment", "contacts", "select agency_id from contact where contact_ref = $1"),
    "sub": ("entitlements", "people", "select agency_id from seat where subject_ref = $1"),
}


@on_target()
async def erase_lost(
    target: Target,
    agency: Agency,
    reference: Annotated[str, typer.Argument(help="The contact (con_…) or seat holder (sub_…) that reconcile names.")],
    reason: Reason,
) -> Answer:
    """Erase a contact or a seat holder that a restore lost but the directory topics and notify still have.

    The service refuses it if it knows the contact, or if the person has a seat.
    """
    owner = _OWNERS.get(reference.partition("_")[0])
    if owner is None:
        raise BadInput(f"REFERENCE {reference}: must be a contact (con_…) or a seat holder (sub_…)")
    service, collection, agencies = owner
    target.require("urls", "admin_dsn")
    await _require_no_other(target, service, agency, reference, agencies)
    path = f"{agency_path(agency)}/{collection}/{quote(reference, safe='')}/erasure"
    async with target.service(service, "operate") as client:
        reply = await client.post(path, {"reason": reason})
    return Answer(reply, f"{service}: the erasure of {reference} is published")


async def _require_no_other(target: Target, service: str, agency: str, reference: str, agencies: str) -> None:
    """Raise BadInput if the reference is another agency's: if both share a partition, that data would be erased."""
    async with client_of_postgres(), reading(target.admin_dsn, service) as connection:
        found = {row["agency_id"] for row in await connection.fetch(agencies, reference)}
    if others := found - {agency}:
        raise BadInput(f"REFERENCE {reference}: belongs to {', '.join(sorted(others))}, not to {agency}")
