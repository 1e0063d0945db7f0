"""What the routes of the feature catalog refuse: bad input, other agencies' tokens, and an outdated proposal."""

import asyncio
import base64
from datetime import timedelta

from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.test_catalog import FRONTIER, RESEARCH, SECOND, approve, ask, draft, propose
from tests.support.eventually import eventually

DAY = timedelta(days=1)


async def test_refusals_name_the_fault_and_drafts_belong_to_the_program(entitlements: Entitlements) -> None:
    for features, field in (
        ([RESEARCH | {"trial_days": -1}], "trial_days"),
        ([RESEARCH | {"value": 1.5}], "features.0.value: 1.5 is invalid: must be a whole number or text"),
        ([RESEARCH | {"value": 2**53 + 1}], "must be a whole number from -9007199254740992 to 9007199254740992"),
        ([RESEARCH | {"value": ""}], "must be text of 1 to 200 characters"),
        ([RESEARCH | {"monthly_quota_after": None}], '"features.0: quota or monthly_quota_after is required'),
        ([RESEARCH, FRONTIER, RESEARCH], "features.2.key"),
        ([RESEARCH | {"monthly_quota_after": None}], "monthly_quota_after is required"),
        ([], "features"),
    ):
        for method, path in (("PUT", "/draft"), ("POST", "/plan")):
            reply = await ask(entitlements, method, path, json={"rule": "now", "features": features})
            assert (reply.status_code, field in reply.text) == (422, True), reply.text
    assert (await ask(entitlements, "POST", "/draft/publication", headers={"If-Match": '"1"'})).status_code == 404
    assert (await ask(entitlements, "POST", "/draft/publication")).status_code == 428
    assert (await ask(entitlements, "GET", "/versions/9")).json()["type"].endswith("catalog-version-unknown")
    await entitlements.enroll(cap=1)
    unknown = await entitlements.get("checks", subject="ada@nasa.gov", feature="deep-reserch")
    assert (unknown.status_code, unknown.json()["nearest"]) == (404, ["deep-research"])
    odd = await entitlements.get("checks", subject="ada@nasa.gov", feature="deep\x00research")
    assert odd.status_code == 400
    used = await entitlements.post("usage", {"subject": "ada@nasa.gov", "feature": "deep\x00research"})
    assert used.status_code == 404
    far = base64.urlsafe_b64encode(b"9" * 18).decode()
    assert (await ask(entitlements, "GET", "/versions", params={"after": far})).json()["items"] == []
    pairs = {"pairs": [{"subject": "ada@nasa.gov"}, {"subject": "ada@nasa.gov", "feature": "deep-reserch"}]}
    refused = await entitlements.post("checks", pairs)
    assert (refused.status_code, "pairs.1.feature" in refused.text, "deep-research" in refused.text) == (
        422,
        True,
        True,
    )

    # A proposal applies to the draft as it was, runs once, and expires.
    first = await propose(entitlements, (await draft(entitlements, [FRONTIER]))["revision"])
    second = await propose(entitlements, (await draft(entitlements, SECOND))["revision"])
    outdated = await approve(entitlements, first)
    assert (outdated.status_code, outdated.json()["type"]) == (409, "urn:muster:problem:proposal-outdated")
    assert (await entitlements.service.client.post(f"{second}/approval")).status_code == 403  # one's own
    entitlements.service.clock.move(START + 14 * DAY)

    async def expired() -> bool:
        return bool((await entitlements.service.client.get(second)).json()["state"] == "expired")

    await eventually(expired)
    assert (await approve(entitlements, second)).status_code == 409

    token = entitlements.service.token("entitlements:read", "entitlements:operate", agency="NASA")
    own = {"Authorization": f"Bearer {token}"}
    assert (await ask(entitlements, "GET", "", headers=own)).json()["number"] == 1
    assert (await ask(entitlements, "GET", "/draft", headers=own)).status_code == 403
    async with entitlements.service.process.app.state.database.read("NASA") as connection:
        assert await connection.fetchval("select count(*) from catalog_version") == 0
        assert await connection.fetchval("select count(*) from proposal") == 0
    third = await propose(entitlements, (await draft(entitlements, SECOND))["revision"])
    replies = await asyncio.gather(*(approve(entitlements, third) for _ in range(3)))
    assert [(reply.status_code, reply.json()["number"]) for reply in replies] == [(200, 2)] * 3
    publications = "select count(*) from audit where command = 'PublishCatalog'"
    assert await entitlements.service.admin.fetchval(publications) == 1
    listed = await ask(entitlements, "GET", "/versions", headers=own, params={"limit": "1"})
    assert ([each["number"] for each in listed.json()["items"]], bool(listed.json()["next"])) == ([1], True)
    rest = await ask(entitlements, "GET", "/versions", headers=own, params={"after": listed.json()["next"]})
    assert [each["number"] for each in rest.json()["items"]] == [2]


async def test_a_draft_replaces_only_the_one_that_was_read(entitlements: Entitlements) -> None:
    body = {"rule": "now", "features": SECOND}
    early = await ask(entitlements, "PUT", "/draft", json=body, headers={"If-Match": '"1"'})
    assert (early.status_code, "has no draft" in early.text) == (412, True)
    first = await ask(entitlements, "PUT", "/draft", json=body)
    assert first.headers["etag"] == f'"{first.json()["revision"]}"'
    read = {"If-Match": first.headers["etag"]}
    second = await ask(entitlements, "PUT", "/draft", json=body | {"features": [FRONTIER]}, headers=read)
    assert (second.status_code, second.headers["etag"] != first.headers["etag"]) == (200, True)
    stale = await ask(entitlements, "PUT", "/draft", json=body, headers=read)
    assert (stale.status_code, stale.json()["type"]) == (412, "urn:muster:problem:precondition-failed")
    assert (await ask(entitlements, "PUT", "/draft", json=body, headers={"If-Match": "*"})).status_code == 400
    assert (await ask(entitlements, "GET", "/draft")).headers["etag"] == second.headers["etag"]
