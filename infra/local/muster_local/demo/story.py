"""The program's first year, scene by scene: who does what, and when."""

import asyncio
import csv
import hashlib
import io
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from typing import Any

from muster_local.coordinator import Coordinator
from muster_local.demo import cast
from muster_local.demo.cast import Agency, Person
from muster_local.demo.program import ProgramClient, demand
from muster_local.demo.scene import Scene, moment
from muster_local.receiver import Receiver

_ACTIVATED = 4  # people in each agency who use their seat
_TURNED_AWAY = 3  # people for whom the crowded agency has no seat
_LOOK_SECONDS = 0.05  # between two polls of a seat import

_PAYS_AFTER = timedelta(days=20)
_RENEWAL_OFFERED_AFTER = timedelta(days=305)
_DECIDES_AFTER = _RENEWAL_OFFERED_AFTER + timedelta(days=10)
_AUTHORIZED_FOR = timedelta(days=730)


_CROWDED_AT = moment(2025, 9, 3)
_LEAVES_AT = moment(2025, 9, 5)
_RECEIVER_DOWN_AT = moment(2025, 10, 6, 0)
_RECEIVER_UP_AT = moment(2025, 10, 13, 0)
_LAPSES_AT = moment(2026, 1, 15, 0)
_CHECKED_AT = moment(2026, 1, 20)
_RENEWED_AT = moment(2026, 1, 22)


class Story:
    """The scenes, played against the real services."""

    def __init__(
        self, program: ProgramClient, coordinator: Coordinator, receiver: Receiver, agencies: Sequence[Agency]
    ) -> None:
        self._program = program
        self._coordinator = coordinator
        self._receiver = receiver
        self._agencies = agencies
        self._by_id = {agency.id: agency for agency in agencies}

    def scenes(self) -> list[Scene]:
        """The scenes, in order of time."""
        scenes = [
            Scene(
                cast.START,
                f"The register is imported, an outside system subscribes, and {cast.REFUSED} is refused",
                self._open,
            ),
            Scene(_CROWDED_AT, f"{cast.CROWDED} requests more seats than agreed", self._crowd),
            Scene(_LEAVES_AT, f"{cast.LEAVING} withdraws", self._leave),
            Scene(_RECEIVER_DOWN_AT, "The outside system goes down for a week", self._receiver.go_down),
            Scene(_RECEIVER_UP_AT, "The outside system is back", self._receiver.come_up),
            Scene(_CHECKED_AT, f"{cast.LAPSING} has had no authorization since {_LAPSES_AT:%B %d}", self._check_lapsed),
            Scene(_RENEWED_AT, f"{cast.LAPSING} is authorized again", self._authorize_again),
            Scene(cast.END, "A year and a day are over", self._coordinator.settle),
        ]
        for enrolls_at, group in groupby(self._agencies, key=lambda agency: agency.enrolls_at):
            agencies = list(group)
            payers = [agency for agency in agencies if agency.id not in (cast.LEAVING, cast.UNPAID)]
            staying = [agency for agency in agencies if agency.id != cast.LEAVING]
            scenes += [
                Scene(enrolls_at, f"{_names(agencies)} enroll", partial(self._enroll_all, agencies)),
                Scene(enrolls_at + _PAYS_AFTER, f"{_names(payers)} pay", partial(self._pay_all, payers)),
                Scene(
                    enrolls_at + _DECIDES_AFTER,
                    f"{_names(staying)} answer the renewal offer",
                    partial(self._decide_all, staying),
                ),
            ]
        return sorted(scenes, key=lambda scene: scene.at)

    async def _open(self) -> None:
        await self._program.upload("enrollment", "register", cast.register(), "text/tab-separated-values")
        webhook = await self._program.post("notify", "agencies/*/webhooks", {"url": self._receiver.url + "/"})
        await self._receiver.trust(webhook["secret"])
        await self._program.post(
            "enrollment",
            f"agencies/{cast.REFUSED}/enrollments",
            _enrollment(10, cast.START, Person("Robin Example", "robin.example@gao.gov")),
            expect=422,
        )

    async def _enroll_all(self, agencies: Sequence[Agency]) -> None:
        await asyncio.gather(*(self._enroll(agency) for agency in agencies))
        await self._coordinator.settle()  # each agency's seat pool is open now
        await asyncio.gather(*(self._fill_seats(agency) for agency in agencies))

    async def _enroll(self, agency: Agency) -> None:
        steps = {
            "enrollment": lambda: self._submit(agency),
            "authorization": lambda: self._authorize(agency, agency.enrolls_at),
            "acceptance": lambda: self._accept(agency),
        }
        for step in agency.steps:
            await steps[step]()

    async def _submit(self, agency: Agency) -> None:
        key = uuid.uuid4().hex
        body = _enrollment(agency.seats, agency.enrolls_at, agency.contact)
        first = await self._program.post("enrollment", f"agencies/{agency.id}/enrollments", body, key=key)
        if agency.id == cast.TWICE:
            again = await self._program.post("enrollment", f"agencies/{agency.id}/enrollments", body, key=key)
            demand(again == first, f"{agency.id} got a different answer the second time")

    async def _authorize(self, agency: Agency, start: datetime) -> None:
        first_of_lapsing = agency.id == cast.LAPSING and start < _LAPSES_AT
        await self._program.post(
            "enrollment",
            f"agencies/{agency.id}/authorizations",
            {
                "number": f"GSA-ATU-{start:%Y}-{agency.id}",
                "issuer": "GSA",
                "product": "frontier-assistant",
                "valid_from": _text(start),
                "valid_until": _text(_LAPSES_AT if first_of_lapsing else start + _AUTHORIZED_FOR),
            },
        )

    async def _accept(self, agency: Agency) -> None:
        document = f"The data-use terms, signed by an invented officer of {agency.name}."
        await self._program.post(
            "enrollment",
            f"agencies/{agency.id}/data-use-acceptances",
            {
                "terms_version": "2025-08",
                "signer": {"name": agency.contact.name, "email": agency.contact.email},
                "evidence_sha256": hashlib.sha256(document.encode()).hexdigest(),
            },
        )

    async def _fill_seats(self, agency: Agency) -> None:
        result = await self._import_seats(agency, range(agency.seats))
        demand(result["refused"] == 0, f"{agency.id}: {result['refused']} seats were refused")
        if agency.id == cast.TRYING:
            return
        seats = await self._program.get("entitlements", f"agencies/{agency.id}/seats", limit=_ACTIVATED)
        for seat in seats["items"]:
            path = f"agencies/{agency.id}/seats/{seat['seat_id']}/activation"
            await self._program.post("entitlements", path, expect=200)

    async def _import_seats(self, agency: Agency, numbers: Iterable[int]) -> Any:
        file = io.StringIO()
        writer = csv.writer(file)
        writer.writerow(["email", "name"])
        writer.writerows([person.email, person.name] for person in map(agency.person, numbers))
        path = f"agencies/{agency.id}/seat-imports"
        operation = await self._program.upload("entitlements", path, file.getvalue().encode(), "text/csv", expect=202)
        path = f"agencies/{agency.id}/operations/{operation['operation_id']}"
        while operation["state"] == "running":
            await asyncio.sleep(_LOOK_SECONDS)
            operation = await self._program.get("entitlements", path)
        return operation

    async def _crowd(self) -> None:
        """Some people find no seat; when a seat is returned, one of them gets it."""
        agency = self._by_id[cast.CROWDED]
        late = range(agency.seats, agency.seats + _TURNED_AWAY)
        result = await self._import_seats(agency, late)
        demand(result["refused"] == _TURNED_AWAY, f"{agency.id}: {result['refused']} of {_TURNED_AWAY} were refused")
        seats = await self._program.get("entitlements", f"agencies/{agency.id}/seats", limit=1)
        returned = f"agencies/{agency.id}/seats/{seats['items'][0]['seat_id']}/revocation"
        await self._program.post("entitlements", returned, expect=200)
        person = agency.person(late[0])
        body = {"email": person.email, "name": person.name}
        await self._program.post("entitlements", f"agencies/{agency.id}/seats", body)

    async def _leave(self) -> None:
        agency = f"agencies/{cast.LEAVING}"
        read = await self._program.etag("enrollment", f"{agency}/enrollment")
        await self._program.post(
            "enrollment", f"{agency}/withdrawal", {"reason": "reorganized"}, expect=200, if_match=read
        )

    async def _check_lapsed(self) -> None:
        await self._check(self._by_id[cast.LAPSING], "refused", "suspended")

    async def _authorize_again(self) -> None:
        agency = self._by_id[cast.LAPSING]
        await self._authorize(agency, _RENEWED_AT)
        await self._coordinator.settle()
        await self._check(agency, "allowed")

    async def _check(self, agency: Agency, verdict: str, reason: str | None = None) -> None:
        answer = await self._program.get(
            "entitlements",
            f"agencies/{agency.id}/checks",
            subject=agency.person(0).email,
            feature="frontier-models",
        )
        expected = answer["verdict"] == verdict and reason in (None, answer["reason"])
        demand(expected, f"{agency.id}: the check says {answer['verdict']} ({answer['reason']}), not {verdict}")

    async def _pay_all(self, agencies: Sequence[Agency]) -> None:
        await asyncio.gather(*(self._pay(agency) for agency in agencies))

    async def _pay(self, agency: Agency) -> None:
        invoices = await self._program.get("billing", f"agencies/{agency.id}/invoices")
        for invoice in invoices["items"]:
            if invoice["state"] == "issued":
                await self._program.post(
                    "billing",
                    f"agencies/{agency.id}/invoices/{invoice['invoice_id']}/payments",
                    {"amount": invoice["amount"], "reference": f"TREAS-{agency.id}"},
                )

    async def _decide_all(self, agencies: Sequence[Agency]) -> None:
        await asyncio.gather(*(self._decide(agency) for agency in agencies))

    async def _decide(self, agency: Agency) -> None:
        renewals = await self._program.get("billing", f"agencies/{agency.id}/renewals")
        decision = "declined" if agency.id == cast.DECLINING else "accepted"
        demand(len(renewals["items"]) == 1, f"{agency.id} has {len(renewals['items'])} renewal offers, not one")
        path = f"agencies/{agency.id}/renewals/{renewals['items'][0]['renewal_id']}/decision"
        await self._program.post("billing", path, {"decision": decision}, expect=200)


def _names(agencies: Sequence[Agency]) -> str:
    return ", ".join(agency.id for agency in agencies)


def _enrollment(seats: int, starts_at: datetime, contact: Person) -> dict[str, Any]:
    return {
        "seats": seats,
        "starts_at": _text(starts_at),
        "contact": {"name": contact.name, "email": contact.email},
    }


def _text(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")
