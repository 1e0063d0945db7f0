"""Files that suspend, revoke, and transfer people's seats."""

from muster_contracts.entitlements import (
    PersonErased,
    SeatBatchCompleted,
    SeatRevoked,
    SeatSuspended,
    SeatTransferred,
)
from tests.integration.entitlements.conftest import Entitlements
from tests.integration.entitlements.files import people
from tests.integration.entitlements.lives import published


async def test_seats_are_suspended_revoked_and_transferred_by_files(entitlements: Entitlements) -> None:
    await entitlements.enroll(cap=10)
    await entitlements.import_file(people(1, 2, 3, 4))

    body = "email\nperson.1@nasa.gov\nPERSON.1@nasa.gov\nperson.9@nasa.gov\nno address\n"
    for dry in (True, False):
        suspended = await entitlements.import_file(body, "seat-suspensions", dry_run=dry)
        results = await entitlements.results(suspended)
        assert [row["outcome"] for row in results] == ["suspended", "unchanged", "refused", "refused"]
        assert results[2]["reason"] == "the person has no seat"
        assert (await entitlements.check(1))["reason"] == ("window_open" if dry else "seat_suspended")

    body = "from,to,name\nperson.2@nasa.gov,person.5@nasa.gov,Five\nperson.3@nasa.gov,person.2@nasa.gov,Two\n"
    body += "person.1@nasa.gov,person.6@nasa.gov,\nperson.4@nasa.gov,person.5@nasa.gov,\n"
    for dry in (True, False):
        transferred = await entitlements.import_file(body, "seat-transfers", dry_run=dry)
        results = await entitlements.results(transferred)
        assert [(row["outcome"], row["reason"]) for row in results] == [
            ("transferred", ""),
            ("transferred", ""),
            ("refused", "the seat is suspended"),
            ("refused", "the person who is to get the seat has one"),
        ]
    assert [(await entitlements.check(n))["verdict"] for n in (2, 3, 5)] == ["allowed", "refused", "allowed"]

    subject = (await entitlements.get("seats")).json()["items"][0]["subject_ref"]
    body = f"subject\n{subject}\nperson.4@nasa.gov\nperson.4@nasa.gov\n"
    revoked = await entitlements.import_file(body, "seat-revocations")
    assert (revoked["changed"], revoked["refused"], revoked["assigned"]) == (2, 1, 0)
    assert (await entitlements.pool())["in_use"] == 2

    for cls, count in ((SeatSuspended, 1), (SeatTransferred, 2), (SeatRevoked, 2)):
        await published(entitlements, cls, count)
    # People 2 and 3 gave their seats to others.
    gone = [event.data.from_subject_ref for event in await published(entitlements, SeatTransferred, 2)]
    gone += [event.data.subject_ref for event in await published(entitlements, SeatRevoked, 2)]
    erased = await published(entitlements, PersonErased, 4)
    assert sorted(event.data.subject_ref for event in erased) == sorted(gone)
    kinds = [event.data.kind for event in await published(entitlements, SeatBatchCompleted, 4)]
    assert kinds == ["import", "suspension", "transfer", "revocation"]
