"""Commands over HTTP: their effects, and refusals that change nothing."""

import asyncio
from itertools import permutations
from typing import Any

from muster_contracts.enrollment import AgencyEnrolled, AgencyEnrollmentSubmitted, AgencyWithdrawn, ContactRecorded
from muster_local.scopes import SCOPES
from tests.integration.enrollment.program import (
    DAY,
    REGISTER,
    START,
    Program,
    acceptance,
    authorization,
    enrollment,
    problem,
)

STEPS = {
    "enrollments": (enrollment(), "AgencyEnrollmentSubmitted"),
    "authorizations": (authorization(), "AtuRecorded"),
    "data-use-acceptances": (acceptance(), "DataUseTermsAccepted"),
}


async def test_the_last_of_the_three_steps_activates_in_its_own_transaction(program: Program) -> None:
    agencies = ["HHS", "NIH", "NASA", "DOE", "NSF", "SBA"]
    for agency, order in zip(agencies, permutations(STEPS), strict=True):
        for path in order:
            assert await program.state(agency) != "active"
            response = await program.post(agency, path, STEPS[path][0])
            assert response.status_code == 201, response.text
        assert await program.state(agency) == "active"
        envelopes = await program.envelopes(agency)
        names = [STEPS[path][1] for path in order]
        assert [envelope.type.split(".")[2] for envelope in envelopes] == [*names, "AgencyEnrolled"]
        assert envelopes[-1].correlation_id == envelopes[-2].correlation_id == response.headers["x-correlation-id"]

    enrolled = await program.service.published(AgencyEnrolled)
    assert sorted(received.data.agency_id for received in enrolled) == sorted(agencies)
    assert {(r.data.seats, r.data.starts_at, r.data.ends_at) for r in enrolled} == {(100, START, START + 365 * DAY)}


async def test_only_the_restricted_directory_names_people(program: Program) -> None:
    for path, (body, _) in STEPS.items():
        await program.post("NASA", path, body, **{"Idempotency-Key": path})
    await program.facts("NASA")
    contacts = await program.service.published(ContactRecorded)
    assert [(c.data.role, c.data.email) for c in contacts] == [
        ("administrator", "robin.invented@agency.gov"),
        ("signer", "sasha.invented@agency.gov"),
    ]
    for record in await program.service.reader.records():
        restricted = record.topic.endswith(ContactRecorded.topic)
        assert (b"invented" in (record.value or b"").lower()) == restricted
    stored = await program.service.admin.fetch(
        "select convert_from(body, 'utf8') as text from idempotency union all select after::text from audit"
    )
    texts = [row["text"] for row in stored]
    assert len(texts) == 7
    assert not [text for text in texts if "nvented" in text]


async def test_an_agency_sees_its_enrollment(program: Program) -> None:
    draft = await program.get("agencies/NASA/enrollment")
    assert draft.json()["state"] == "draft"
    assert draft.json()["missing"] == ["authorization", "data_use_terms"]
    assert "etag" not in draft.headers
    submitted = await program.post("NASA", "enrollments", enrollment(seats=7))
    assert submitted.headers["location"] == "/v1/agencies/NASA/enrollment"
    shown = await program.get("agencies/NASA/enrollment")
    assert shown.json() == submitted.json()
    assert (shown.json()["state"], shown.json()["seats"], shown.headers["etag"]) == ("submitted", 7, '"1"')


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("enrollments", enrollment(seats=0), "seats"),
    ("enrollments", enrollment(seats="100"), "seats"),
    ("enrollments", enrollment(seats=True), "seats"),
    ("enrollments", enrollment(seats=10**30), "seats"),
    ("enrollments", enrollment(starts_at="2025-08-06T00:00:00"), "starts_at"),
    ("enrollments", enrollment(starts_at="soon"), "starts_at"),
    ("enrollments", enrollment(starts_at="9999-12-31T23:59:59-05:00"), "starts_at"),
    ("enrollments", enrollment(starts_at="9999-12-31T23:59:59Z"), "starts_at"),
    ("enrollments", enrollment(contact={"name": "", "email": "a@b.gov"}), "contact.name"),
    ("enrollments", enrollment(contact={"name": "a\x00b", "email": "a@b.gov"}), "contact.name"),
    ("enrollments", enrollment(contact={"name": "A", "email": "not an address"}), "contact.email"),
    ("enrollments", enrollment(time_zone="localtime"), "time_zone"),
    ("enrollments", enrollment(cap=5), "cap"),
    ("authorizations", authorization(START + DAY, START + DAY), "valid_until"),
    ("authorizations", authorization(START + 2 * DAY, START + DAY), "valid_until"),
    ("authorizations", authorization(START - 2 * DAY, START), "valid_until"),
    ("authorizations", authorization(issuer="NASA"), "issuer"),
    ("authorizations", authorization(product="another-product"), "product"),
    ("authorizations", authorization(number=5), "number"),
    ("data-use-acceptances", acceptance(terms_version="1999-01"), "terms_version"),
    ("data-use-acceptances", acceptance(evidence_sha256="0F" * 32), "evidence_sha256"),
    ("data-use-acceptances", acceptance(evidence_sha256="0f" * 31), "evidence_sha256"),
    ("enrollments", enrollment(contact={"name": "A", "email": "a@agency.com"}), "contact.email"),
    ("enrollments", enrollment(contact={"name": "A", "email": "a@agency.gov.example"}), "contact.email"),
    ("enrollments", enrollment(contact={"name": "A", "email": "a@gov"}), "contact.email"),
    ("enrollments", enrollment(contact={"name": "A", "email": "jane.doe,@agency.gov"}), "contact.email"),
    ("enrollments", enrollment(contact={"name": "A", "email": "josé@agency.gov"}), "contact.email"),
    ("enrollments", enrollment(contact={"name": "A", "email": "a\x00@agency.gov"}), "contact.email"),
    ("enrollments", enrollment(contact={"name": "A", "email": "a@b@agency.gov"}), "contact.email"),
    ("enrollments", enrollment(starts_at="2020-01-01T00:00:00Z"), "starts_at"),
    ("enrollments", enrollment(starts_at=(START - DAY).isoformat()), "starts_at"),
    ("enrollments", enrollment(seats=9_999_999), "seats"),
    ("data-use-acceptances", acceptance(signer={"name": "S", "email": "s@contractor.com"}), "signer.email"),
    ("data-use-acceptances", acceptance(signer={"name": "S", "email": "mailto:s@agency.gov"}), "signer.email"),
    ("withdrawal", {"reason": " "}, "reason"),
    ("withdrawal", {"reason": "ada@nasa.gov asked"}, "reason"),
    ("withdrawal", {}, "reason"),
]


async def test_bad_input_names_the_field_and_changes_nothing(program: Program) -> None:
    for path, body, field in BAD:
        refused = problem(await program.post("NASA", path, body, **{"If-Match": '"0"'}), 422)
        assert [error["field"].removeprefix("body.") for error in refused["errors"]] == [field], refused
        assert refused["errors"][0]["rule"]
    assert await program.facts("NASA") == []
    assert await program.state("NASA") == "draft"
    assert await program.service.admin.fetchval("select count(*) from contact") == 0


async def test_seats_are_at_most_one_and_a_half_times_the_headcount_with_sub_agencies(program: Program) -> None:
    refused = problem(await program.post("NASA", "enrollments", enrollment(seats=26_960)), 422)
    (error,) = refused["errors"]
    assert (error["field"], error["value"]) == ("seats", "26960")
    assert "26959" in error["rule"]
    assert "1.5 times the headcount of 17973" in error["rule"]
    for agency, seats, status in [
        ("NASA", 26_959, 201),
        ("HHS", (92_269 + 21_299) * 3 // 2 + 1, 422),
        ("HHS", (92_269 + 21_299) * 3 // 2, 201),  # with NIH, which is part of it
        ("NIH", 21_299 * 3 // 2 + 1, 422),
    ]:
        response = await program.post(agency, "enrollments", enrollment(seats=seats))
        assert response.status_code == status, response.text


async def test_an_unknown_headcount_sets_no_limit(program: Program) -> None:
    header = REGISTER.partition("\n")[0]
    await program.import_register(f"{header}\nANL,Argonne National Laboratory,DOE,,anl.gov,,executive\n")
    response = await program.post("ANL", "enrollments", enrollment(seats=10_000_000))
    assert response.status_code == 201, response.text
    refused = problem(await program.post("DOE", "enrollments", enrollment(seats=10_000_000)), 422)
    assert "headcount of 17472" in refused["errors"][0]["rule"]


async def test_an_agency_that_is_not_in_the_register_is_not_found(program: Program) -> None:
    for path, (body, _) in STEPS.items():
        problem(await program.post("NOAA", path, body), 404)
    for path in ("agencies/NOAA", "agencies/NOAA/enrollment", "agencies/NOAA/authorizations"):
        problem(await program.get(path), 404)


async def test_an_agency_outside_the_executive_branch_is_refused(program: Program) -> None:
    refused = problem(await program.post("GAO", "enrollments", enrollment()), 422)
    assert "legislative" in refused["detail"]
    assert await program.state("GAO") == "draft"


async def test_repeating_a_command_is_a_conflict(program: Program) -> None:
    await program.activate("NASA")
    for path, (body, _) in STEPS.items():
        problem(await program.post("NASA", path, body), 409)
    problem(await program.withdraw("DOE"), 409)


async def test_a_repeated_submission_has_one_effect(program: Program) -> None:
    key = {"Idempotency-Key": "nasa-joins"}
    first = await program.post("NASA", "enrollments", enrollment(), **key)
    again = await program.post("NASA", "enrollments", enrollment(), **key)
    assert (again.status_code, again.json()) == (201, first.json())
    problem(await program.post("NASA", "enrollments", enrollment(seats=5), **key), 422)
    assert [name for name, _ in await program.facts("NASA")] == ["AgencyEnrollmentSubmitted"]


async def test_one_of_many_concurrent_submissions_succeeds(program: Program) -> None:
    responses = await asyncio.gather(*(program.post("NASA", "enrollments", enrollment()) for _ in range(20)))
    assert sorted(response.status_code for response in responses) == [201] + [409] * 19
    await program.facts("NASA")
    assert len(await program.service.published(AgencyEnrollmentSubmitted)) == 1


async def test_a_withdrawal_and_a_new_enrollment(program: Program) -> None:
    await program.activate("NASA")
    refused = problem(await program.post("NASA", "withdrawal", {"reason": "reorganized"}), 428)
    assert (refused["type"], "If-Match" in refused["detail"]) == ("urn:muster:problem:precondition-required", True)
    problem(await program.withdraw("NASA", **{"If-Match": '"1"'}), 412)
    assert await program.state("NASA") == "active"
    withdrawn = await program.withdraw("NASA")
    assert (withdrawn.status_code, withdrawn.json()["state"]) == (200, "withdrawn")
    assert withdrawn.json()["closing_reason"] == "reorganized"

    again = await program.post("NASA", "enrollments", enrollment(seats=3))
    assert (again.json()["state"], again.json()["number"], again.json()["closed_at"]) == ("active", 2, None)
    assert [name for name, _ in await program.facts("NASA")][-3:] == [
        "AgencyWithdrawn",
        "AgencyEnrollmentSubmitted",
        "AgencyEnrolled",
    ]
    (published,) = await program.service.published(AgencyWithdrawn)
    assert published.data.enrollment_id == withdrawn.json()["enrollment_id"] != again.json()["enrollment_id"]


async def test_the_etag_of_an_earlier_enrollment_does_not_withdraw_the_next(program: Program) -> None:
    earlier: list[str] = []
    for _ in range(3):
        await program.post("NASA", "enrollments", enrollment())
        for etag in earlier:
            problem(await program.withdraw("NASA", **{"If-Match": etag}), 412)
        submitted = await program.get("agencies/NASA/enrollment")
        assert (await program.withdraw("NASA")).status_code == 200
        withdrawn = await program.get("agencies/NASA/enrollment")
        earlier += [submitted.headers["etag"], withdrawn.headers["etag"]]


async def test_a_revocation_suspends_when_no_other_authorization_is_in_force(program: Program) -> None:
    await program.activate("NASA", authorization(), authorization(end=START + 60 * DAY))
    listed = (await program.get("agencies/NASA/authorizations")).json()["items"]
    paths = [f"authorizations/{item['authorization_id']}/revocation" for item in listed]
    first = await program.post("NASA", paths[0], {"reason": "superseded"})
    assert (first.status_code, first.json()["revoked_at"]) == (200, "2025-08-06T00:00:00Z")
    assert await program.state("NASA") == "active"
    await program.post("NASA", paths[1], {"reason": "superseded"})
    assert (await program.get("agencies/NASA/enrollment")).json()["suspension_reason"] == "atu_revoked"

    problem(await program.post("NASA", paths[1], {"reason": "superseded"}), 409)
    problem(await program.post("DOE", paths[1], {"reason": "superseded"}), 404)
    await program.move(START + 90 * DAY)
    names = [name for name, _ in await program.facts("NASA")]
    assert names.count("AgencySuspended") == 1
    assert "AtuLapsed" not in names


async def test_authorizations_come_in_pages(program: Program) -> None:
    for number in range(2):
        await program.move(START + number * DAY)
        await program.post("NASA", "authorizations", authorization(number=str(number)))
    first = (await program.get("agencies/NASA/authorizations?limit=1")).json()
    rest = (await program.get(f"agencies/NASA/authorizations?limit=1&after={first['next']}")).json()
    assert [[item["number"] for item in page["items"]] for page in (first, rest)] == [["0"], ["1"]]
    assert rest["next"] is None


async def test_another_tenants_agency_is_not_found(program: Program) -> None:
    token = program.service.token("enrollment:read", "enrollment:write", agency="NASA")
    as_nasa = {"Authorization": f"Bearer {token}"}
    assert (await program.post("NASA", "enrollments", enrollment(), **as_nasa)).status_code == 201
    for path, (body, _) in STEPS.items():
        problem(await program.post("DOE", path, body, **as_nasa), 403 if path == "authorizations" else 404)
    for path in ("agencies/DOE", "agencies/DOE/enrollment", "agencies/DOE/authorizations"):
        problem(await program.get(path, **as_nasa), 404)
    assert [item["id"] for item in (await program.get("agencies", **as_nasa)).json()["items"]] == ["NASA"]
    token = program.service.token("enrollment:read", agency=["NASA", "DOE", "NOT-IN-THE-REGISTER"])
    both = {"Authorization": f"Bearer {token}"}
    assert [item["id"] for item in (await program.get("agencies", **both)).json()["items"]] == ["DOE", "NASA"]


async def test_an_agency_does_not_authorize_itself(program: Program) -> None:
    """GSA issues and revokes authorizations: an agency's token cannot record either, whatever its scopes."""
    own = {"Authorization": f"Bearer {program.service.token(*SCOPES, agency='NASA')}"}
    assert (await program.post("NASA", "enrollments", enrollment(), **own)).status_code == 201
    for token in (own, {"Authorization": f"Bearer {program.service.token('enrollment:write')}"}):
        problem(await program.post("NASA", "authorizations", authorization(), **token), 403)
    recorded = (await program.post("NASA", "authorizations", authorization())).json()
    path = f"authorizations/{recorded['authorization_id']}/revocation"
    problem(await program.post("NASA", path, {"reason": "superseded"}, **own), 403)
    (shown,) = (await program.get("agencies/NASA/authorizations", **own)).json()["items"]
    assert shown == recorded


async def test_a_reader_cannot_write(program: Program) -> None:
    reader = {"Authorization": f"Bearer {program.service.token('enrollment:read')}"}
    for path, (body, _) in STEPS.items():
        problem(await program.post("NASA", path, body, **reader), 403)


async def test_each_command_leaves_an_audit_row(program: Program) -> None:
    await program.activate("NASA")
    await program.withdraw("NASA")
    rows = await program.service.admin.fetch(
        "select command, actor, before ->> 'state' as before, after ->> 'state' as after, reason from audit order by id"
    )
    assert [tuple(row) for row in rows[1:]] == [
        ("SubmitEnrollment", "operator", "draft", "submitted", None),
        ("RecordAtu", "operator", "submitted", "submitted", None),
        ("AcceptDataUseTerms", "operator", "submitted", "active", None),
        ("WithdrawAgency", "operator", "active", "withdrawn", "reorganized"),
    ]
