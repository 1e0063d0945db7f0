"""No cursor, however malformed, makes a list of any service fail."""

import base64
from typing import Any

import pytest

from muster_runtime.http.application import openapi
from muster_runtime.process.roles import Role
from tests.support.applications import BUILDERS, whole_application
from tests.support.services import ServiceRunner


def cursor(key: bytes) -> str:
    """A key, encoded as a page returns it."""
    return base64.urlsafe_b64encode(key).decode().rstrip("=")


# Not a cursor at all: every list refuses it.
MALFORMED = {
    "empty": "",
    "no key": cursor(b""),
    "not base64": "!!",
    "base64 with its padding": "YQ==",
    "base64 of another alphabet": "Pz8/",
    "bits that say nothing": "YR",
    "many nines": "9" * 1_000,
    "longer than any": cursor(b"9" * 5_000),
    "not UTF-8": cursor(b"\xff\xfe"),
    "half a surrogate pair": cursor(b"\xed\xa0\x80"),
    "half a surrogate pair, bare": "%ED%A0%80",
    "U+0000": cursor(b"NASA\0"),
    "U+0000, bare": "%00",
    "a line's end": cursor(b"NASA\n1"),
}

# What some list's pages return, and what looks like it: a list in another order refuses it or begins there.
WELL_FORMED = {
    "a number": b"7",
    "the largest of 18 digits": b"9" * 18,
    "more than a bigint": b"9" * 19,
    "more than Python reads": b"9" * 700,
    "a number below zero": b"-1",
    "digits of another script": "\u0663".encode(),
    "an agency": b"NASA",
    "an id": b"inv_01890a5d-ac96-774b-bcce-b302099a8057",
    "a stream": b"muster.billing.term/NASA",
    "a deadline": b"2025-08-06T00:00:00+00:00 atu NASA atu_1/ends",
    "quotes": b"'; drop table agency; --",
    "percent": b"%s{0}$1",
}

# The other parameters that a list requires, by name.
REQUIRED = {"feature": "deep-research", "subject": "ada@nasa.gov"}

# An agency and a seat that have lists of their own.
REGISTER = "id,name,parent,treasury_code,domains,headcount,branch\nNASA,NASA,,,nasa.gov,10,executive\n"
SEAT = "seat_01890a5dac96774bbcceb302099a8057"
POOL_AND_SEAT = """
    insert into pool (agency_id, enrollment_id, starts_at, ends_at, cap)
    values ('NASA', 'enr_1', now() - interval '1 day', now() + interval '1 year', 1);
    insert into seat (agency_id, seat_id, subject_ref, state, assigned_at)
    values ('NASA', '{}', 'sub_1', 'assigned', now())
"""


def lists(service: str) -> list[str]:
    """The service's routes that take a cursor, an operator's among them, with their path and query filled in."""
    build, settings_class = BUILDERS[service]
    printed = openapi(build(settings_class(environment="sandbox")))["paths"]
    served = whole_application(service).openapi()["paths"]
    found = []
    for path, methods in sorted((printed | served).items()):
        parameters = {parameter["name"]: parameter for parameter in methods.get("get", {}).get("parameters", ())}
        if "after" in parameters:
            query = [f"{name}={value}&" for name, value in REQUIRED.items() if name in parameters]
            found.append(path.format(agency_id="NASA", seat_id=SEAT) + "?" + "".join(query))
    return found


@pytest.mark.parametrize("service", BUILDERS)
async def test_every_list_refuses_a_hostile_cursor(run_service: ServiceRunner, service: str) -> None:
    build, settings_class = BUILDERS[service]
    running = await run_service(build, settings_class, roles=frozenset({Role.API}))
    if service == "enrollment":
        await running.client.post("/v1/register", content=REGISTER, headers={"content-type": "text/csv"})
    if service == "entitlements":
        await running.admin.execute(POOL_AND_SEAT.format(SEAT))
    found = lists(service)
    assert len(found) >= 5, found
    answers: dict[tuple[str, str], int] = {}
    bodies: dict[tuple[str, str], Any] = {}
    for path in found:
        assert (await running.client.get(path)).status_code == 200, path
        for name, given in (MALFORMED | {each: cursor(key) for each, key in WELL_FORMED.items()}).items():
            reply = await running.client.get(f"{path}after={given}")
            answers[path, name], bodies[path, name] = reply.status_code, reply.text

    def with_status(*allowed: int) -> set[tuple[str, str]]:
        return {at for at, status in answers.items() if status in allowed}

    malformed = {(path, name) for path in found for name in MALFORMED}
    assert with_status(200, 400, 422) == answers.keys(), [bodies[at] for at in answers.keys() - with_status(200, 422)]
    assert malformed - with_status(400, 422) == set()
