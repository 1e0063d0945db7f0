"""`muster erase-lost`: erases people whom a restore lost, but not the directory topics and notify."""

from typing import Annotated
from urllib.parse import quote

import typer

from muster_operator.failures import BadInput
from muster_operator.output import Answer
from muster_operator.parked import Agency, Reason
from muster_operator.service import agency_path
from muster_operator.target import Target, on_target

# By the prefix of a reference, the service that erases it and its path there.
_OWNERS = {"con": ("enrollment", "contacts"), "sub": ("entitlements", "people")}


@on_target()
async def erase_lost(
    target: Target,
    agency: Agency,
    reference: Annotated[str, typer.Argument(help="The contact (con_…) or seat holder (sub_…) that reconcile names.")],
    reason: Reason,
) -> Answer:
    """Erase a contact or a seat holder whom a restore lost, but not the directory topics and notify.

    The service refuses it if it knows the contact, or if the person has a seat.
    """
    owner = _OWNERS.get(reference.partition("_")[0])
    if owner is None:
        raise BadInput(f"REFERENCE {reference}: must be a contact (con_…) or a seat holder (sub_…)")
    service, collection = owner
    path = f"{agency_path(agency)}/{collection}/{quote(reference, safe='')}/erasure"
    async with target.service(service, "operate") as client:
        reply = await client.post(path, {"reason": reason})
    return Answer(reply, f"{service}: the erasure of {reference} is published")
