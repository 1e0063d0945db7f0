"""Commands over HTTP: carried out once, whole or not at all, within the caller's agency, and audited."""

import asyncio
import json

import httpx
import pytest

from tests.integration.runtime.http.conftest import Sample

NOTES = "/v1/agencies/NASA/notes"


def key(value: str) -> dict[str, str]:
    return {"Idempotency-Key": value}


async def test_a_command_answers_with_its_reply_and_location(sample: Sample) -> None:
    reply = await sample.client.post(NOTES, json={"text": "hello"})
    assert reply.status_code == 201
    note = reply.json()
    assert note["text"] == "hello"
    assert reply.headers["location"] == f"{NOTES}/{note['note_id']}"
    shown = await sample.client.get(reply.headers["location"])
    assert shown.json() == note


async def test_a_command_without_a_reply(sample: Sample) -> None:
    for _ in range(2):
        reply = await sample.client.delete(NOTES, headers=key("once"))
        assert (reply.status_code, reply.content) == (204, b"")
    assert await sample.count("audit") == 1


async def test_a_repeated_request_gets_the_kept_reply(sample: Sample) -> None:
    first = await sample.client.post(NOTES, json={"text": "a"}, headers=key("k-1"))
    again = await sample.client.post(NOTES, json={"text": "a"}, headers=key("k-1"))
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["content-type"] == first.headers["content-type"]
    assert await sample.count("note") == 1
    assert await sample.count("audit") == 1


async def test_without_a_key_each_request_is_carried_out(sample: Sample) -> None:
    for _ in range(2):
        await sample.client.post(NOTES, json={"text": "a"})
    assert await sample.count("note") == 2
    assert await sample.count("idempotency") == 0


async def test_fifty_requests_with_one_key_at_once_have_one_effect(sample: Sample) -> None:
    replies = await asyncio.gather(
        *(sample.client.post(NOTES, json={"text": "a"}, headers=key("k-1")) for _ in range(50))
    )
    assert {reply.status_code for reply in replies} == {201}
    assert len({reply.content for reply in replies}) == 1
    assert sum("idempotency-replayed" not in reply.headers for reply in replies) == 1
    assert await sample.count("note") == 1


async def test_a_key_belongs_to_its_body(sample: Sample) -> None:
    await sample.client.post(NOTES, json={"text": "a"}, headers=key("k-1"))
    reply = await sample.client.post(NOTES, json={"text": "b"}, headers=key("k-1"))
    assert reply.status_code == 422
    assert reply.json()["type"] == "urn:muster:problem:idempotency-mismatch"
    assert await sample.count("note") == 1


@pytest.mark.parametrize(
    ("method", "path"), [("POST", f"{NOTES}?again=1"), ("PUT", f"{NOTES}/note_1")], ids=["query", "route"]
)
async def test_a_key_belongs_to_its_route(sample: Sample, method: str, path: str) -> None:
    await sample.client.post(NOTES, json={"text": "a"}, headers=key("k-1"))
    reply = await sample.client.request(method, path, json={"text": "a"}, headers=key("k-1"))
    assert reply.status_code == 422
    assert reply.json()["type"] == "urn:muster:problem:idempotency-mismatch"


async def test_a_key_belongs_to_its_agency(sample: Sample) -> None:
    nasa = await sample.client.post(NOTES, json={"text": "a"}, headers=key("k-1"))
    doe = await sample.client.post("/v1/agencies/DOE/notes", json={"text": "a"}, headers=key("k-1"))
    assert doe.status_code == 201
    assert doe.json()["note_id"] != nasa.json()["note_id"]


@pytest.mark.parametrize("value", [b"", b"x" * 256, b"a\tb", b"caf\xe9"])
async def test_a_key_that_is_none_is_refused(sample: Sample, value: bytes) -> None:
    reply = await sample.client.post(
        NOTES, content=b'{"text": "a"}', headers=[(b"content-type", b"application/json"), (b"idempotency-key", value)]
    )
    assert reply.status_code == 400
    assert reply.json()["type"] == "urn:muster:problem:invalid-idempotency-key"
    assert await sample.count("note") == 0


async def test_a_refused_command_leaves_nothing_and_its_key_can_be_used_again(sample: Sample) -> None:
    refused = await sample.client.post(NOTES, json={"text": "taken"}, headers=key("k-1"))
    assert refused.status_code == 409
    assert refused.json()["detail"] == "there is such a note already"
    assert await sample.count("idempotency") == 0
    accepted = await sample.client.post(NOTES, json={"text": "free"}, headers=key("k-1"))
    assert accepted.status_code == 201


@pytest.mark.parametrize("kind", ["unforeseen", "lost", "locked", "retryable"])
async def test_a_failed_command_leaves_nothing(sample: Sample, kind: str) -> None:
    reply = await sample.client.post(f"/v1/agencies/NASA/failures/{kind}", headers=key("k-1"))
    assert reply.status_code == (500 if kind == "unforeseen" else 503)
    assert await sample.count("audit") == 0
    assert await sample.count("idempotency") == 0


async def test_the_audit_says_who_changed_what(sample: Sample) -> None:
    written = await sample.client.post(
        NOTES,
        json={"text": "a"},
        headers={**sample.bearer("sample:write", agency="NASA", subject="ada"), "X-Request-Id": "r-1"},
    )
    (entry,) = (await sample.client.get("/v1/audit?agency_id=NASA")).json()["items"]
    assert entry.pop("recorded_at").endswith("Z")
    assert entry == {
        "id": 1,
        "agency_id": "NASA",
        "actor": "ada",
        "command": "WriteNote",
        "subject": written.json()["note_id"],
        "reason": "asked",
        "before": None,
        "after": {"version": 1},
        "request_id": "r-1",
        "correlation_id": "r-1",
    }


async def test_the_audit_in_pages_and_within_the_tenant(sample: Sample) -> None:
    for agency_id in ("NASA", "DOE", "NASA"):
        await sample.client.post(f"/v1/agencies/{agency_id}/notes", json={"text": "a"})
    first = (await sample.client.get("/v1/audit?limit=2")).json()
    second = (await sample.client.get("/v1/audit", params={"limit": 2, "after": first["next"]})).json()
    assert [entry["agency_id"] for entry in first["items"] + second["items"]] == ["NASA", "DOE", "NASA"]
    assert second["next"] is None

    of_doe = sample.bearer("sample:operate", agency="DOE")
    seen = (await sample.client.get("/v1/audit", headers=of_doe)).json()
    assert [entry["agency_id"] for entry in seen["items"]] == ["DOE"]
    assert (await sample.client.get("/v1/audit?agency_id=NASA", headers=of_doe)).status_code == 404
    assert (await sample.client.get("/v1/audit", headers=sample.bearer("sample:read"))).status_code == 403


async def test_another_agency_seems_not_to_exist(sample: Sample) -> None:
    note = (await sample.client.post(NOTES, json={"text": "a"})).json()
    of_doe = sample.bearer("sample:read", "sample:write", agency="DOE")
    replies: list[httpx.Response] = [
        await sample.client.get(f"{NOTES}/{note['note_id']}", headers=of_doe),
        await sample.client.get(NOTES, headers=of_doe),
        await sample.client.post(NOTES, json={"text": "b"}, headers=of_doe),
        await sample.client.get("/v1/agencies/*/notes", headers=of_doe),
        await sample.client.post("/v1/agencies/*/notes", json={"text": "b"}, headers=of_doe),
        await sample.client.get("/v1/agencies/NASA,DOE/notes", headers=of_doe),
        # Another agency's row by its id, requested under the caller's own agency.
        await sample.client.get(f"/v1/agencies/DOE/notes/{note['note_id']}", headers=of_doe),
    ]
    assert [reply.status_code for reply in replies] == [404] * len(replies)
    assert await sample.count("note") == 1


async def test_requests_of_many_agencies_at_once_see_their_own_rows(sample: Sample) -> None:
    agencies = [f"AGENCY-{number}" for number in range(10)]
    for agency_id in agencies:
        await sample.client.post(f"/v1/agencies/{agency_id}/notes", json={"text": agency_id})

    async def texts(agency_id: str) -> set[str]:
        bearer = sample.bearer("sample:read", agency=agency_id)
        reply = await sample.client.get(f"/v1/agencies/{agency_id}/notes", headers=bearer)
        return {note["text"] for note in reply.json()["items"]}

    asked = agencies * 10
    assert await asyncio.gather(*map(texts, asked)) == [{agency_id} for agency_id in asked]


async def test_an_edit_of_an_old_version_is_refused(sample: Sample) -> None:
    note = (await sample.client.post(NOTES, json={"text": "a"})).json()
    path = f"{NOTES}/{note['note_id']}"
    tag = (await sample.client.get(path)).headers["etag"]
    assert tag == '"1"'
    assert (await sample.client.put(path, json={"text": "b"}, headers={"If-Match": tag})).status_code == 200
    refused = await sample.client.put(path, json={"text": "c"}, headers={"If-Match": tag})
    assert refused.status_code == 412
    assert json.loads((await sample.client.get(path)).content)["text"] == "b"


@pytest.mark.parametrize("tag", ["1", 'W/"1"', '"a"', '"1", "2"', "*", '"9999999999999999999"'])
async def test_a_tag_of_another_form_is_refused(sample: Sample, tag: str) -> None:
    reply = await sample.client.put(f"{NOTES}/note_1", json={"text": "b"}, headers={"If-Match": tag})
    assert reply.status_code == 400


async def test_lists_in_pages(sample: Sample) -> None:
    for number in range(5):
        await sample.client.post(NOTES, json={"text": str(number)})
    texts: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": "2"} | ({} if cursor is None else {"after": cursor})
        page = (await sample.client.get(NOTES, params=params)).json()
        texts += [note["text"] for note in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert sorted(texts) == ["0", "1", "2", "3", "4"]
