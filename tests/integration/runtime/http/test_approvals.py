"""Commands that need a second person: proposed by one, carried out once under both names, or rejected, or expired."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from muster_runtime.context import Context
from muster_runtime.http.approvals import MAX_PENDING
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline
from muster_runtime.scheduling.proposals import PROPOSAL_EXPIRED, on_proposal_expired_due
from tests.integration.runtime.http.conftest import Sample

NOTES = "/v1/agencies/NASA/notes"


class People:
    """Ann proposes, and Bob decides."""

    def __init__(self, sample: Sample, note_id: str) -> None:
        self.sample = sample
        self.title = f"{NOTES}/{note_id}/title?mark=!"
        self.note = f"{NOTES}/{note_id}"
        self.ann = sample.bearer("sample:read", "sample:operate", subject="ann")
        self.bob = sample.bearer("sample:read", "sample:operate", subject="bob")

    async def propose(self, text: str = "new", **headers: str) -> httpx.Response:
        return await self.sample.client.post(self.title, json={"text": text}, headers=self.ann | headers)

    async def approve(self, proposal_id: str, who: dict[str, str] | None = None) -> httpx.Response:
        return await self.sample.client.post(f"/v1/proposals/{proposal_id}/approval", headers=who or self.bob)

    async def reject(self, proposal_id: str, who: dict[str, str] | None = None) -> httpx.Response:
        return await self.sample.client.post(
            f"/v1/proposals/{proposal_id}/rejection", json={"reason": "not now"}, headers=who or self.bob
        )

    async def proposal(self, proposal_id: str) -> dict[str, Any]:
        reply = await self.sample.client.get(f"/v1/proposals/{proposal_id}", headers=self.bob)
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found

    async def outdated(self) -> dict[str, bool]:
        reply = await self.sample.client.get("/v1/proposals", headers=self.bob)
        assert reply.status_code == 200, reply.text
        return {each["proposal_id"]: each["outdated"] for each in reply.json()["items"]}

    async def text(self) -> str:
        return str((await self.sample.client.get(self.note)).json()["text"])

    async def trail(self) -> list[tuple[str, str]]:
        rows = await self.sample.admin.fetch("select command, actor from audit order by id")
        return [(row["command"], row["actor"]) for row in rows][1:]  # without the note's own entry


@pytest.fixture
async def people(sample: Sample) -> People:
    note = await sample.client.post(NOTES, json={"text": "old"})
    return People(sample, note.json()["note_id"])


async def test_a_proposal_runs_once_when_another_person_approves_it(sample: Sample, people: People) -> None:
    proposed = await people.propose(**{"Idempotency-Key": "k"})
    assert proposed.status_code == 202, proposed.text
    proposal_id = proposed.json()["proposal_id"]
    assert proposed.headers["location"] == f"/v1/proposals/{proposal_id}"
    assert (await people.propose(**{"Idempotency-Key": "k"})).json() == proposed.json()
    shown = await people.proposal(proposal_id)
    assert (shown["state"], shown["revision"], shown["proposed_by"]) == ("pending", 1, "ann")
    assert (shown["body"], shown["query"]) == ({"text": "new"}, "mark=!")
    assert shown["route"] == "POST /v1/agencies/{agency_id}/notes/{note_id}/title"
    assert await people.text() == "old"

    own = await people.approve(proposal_id, people.ann)
    assert (own.status_code, own.json()["type"]) == (403, "urn:muster:problem:own-proposal")
    unfit = await people.approve(proposal_id, sample.bearer("sample:read", "sample:write", subject="eve"))
    assert (unfit.status_code, unfit.json()["scope"]) == (403, "sample:operate")
    assert await people.text() == "old"
    # Nobody can take the idempotency key that the approval will use.
    squatting = await people.propose(**{"Idempotency-Key": proposal_id})
    assert (squatting.status_code, squatting.json()["type"]) == (400, "urn:muster:problem:invalid-idempotency-key")

    replies = await asyncio.gather(*(people.approve(proposal_id) for _ in range(10)))
    assert {reply.status_code for reply in replies} <= {200, 409}
    assert sum(reply.status_code == 200 and "idempotency-replayed" not in reply.headers for reply in replies) == 1
    again = await people.approve(proposal_id)
    assert (again.json()["text"], again.json()["version"]) == ("new!", 2)
    assert again.headers["idempotency-replayed"] == "true"
    unfit = await people.approve(proposal_id, sample.bearer("sample:read", "sample:write", subject="eve"))
    assert (unfit.status_code, unfit.json()["scope"]) == (403, "sample:operate")
    decided = await people.proposal(proposal_id)
    assert (decided["state"], decided["decided_by"], decided["body"]) == ("approved", "bob", None)
    assert await people.trail() == [
        ("Propose", "ann"),
        ("ApproveProposal", "ann, approved by bob"),
        ("TitleNote", "ann, approved by bob"),
    ]
    assert (await people.reject(proposal_id)).status_code == 409
    assert await sample.count("deadline") == 0
    await sample.admin.execute("delete from idempotency")  # as after a week
    assert (await people.approve(proposal_id)).json()["type"] == "urn:muster:problem:proposal-decided"
    assert await people.text() == "new!"


async def test_what_would_be_refused_is_not_proposed_and_another_agencys_is_not_there(
    sample: Sample, people: People
) -> None:
    unknown = await sample.client.post(f"{NOTES}/note_0/title", json={"text": "new"}, headers=people.ann)
    assert unknown.status_code == 404
    invalid = await sample.client.post(people.title, json={"text": 1}, headers=people.ann)
    assert invalid.status_code == 422
    assert await sample.count("proposal") == 0
    proposal_id = (await people.propose()).json()["proposal_id"]
    doe = sample.bearer("sample:read", "sample:operate", agency="DOE", subject="dan")
    assert (await people.approve(proposal_id, doe)).status_code == 404
    assert (await sample.client.get("/v1/proposals", headers=doe)).json()["items"] == []
    listed = await sample.client.get("/v1/proposals?state=pending", headers=people.bob)
    assert [each["proposal_id"] for each in listed.json()["items"]] == [proposal_id]


async def test_a_list_of_proposals_reads_no_body(sample: Sample, people: People) -> None:
    proposal_id = (await people.propose()).json()["proposal_id"]
    columns = await sample.admin.fetchval(
        """
        select string_agg(attname, ', ')
        from pg_attribute
        where attrelid = 'proposal'::regclass and attnum > 0 and attname <> 'body'
        """
    )
    await sample.admin.execute("revoke select on proposal from sample_api")
    await sample.admin.execute(f"grant select ({columns}) on proposal to sample_api")
    listed = await sample.client.get("/v1/proposals", headers=people.bob)
    assert listed.status_code == 200, listed.text
    assert [each["proposal_id"] for each in listed.json()["items"]] == [proposal_id]


async def test_proposals_come_in_pages_oldest_first_and_by_state(sample: Sample, people: People) -> None:
    proposed = [(await people.propose()).json()["proposal_id"] for _ in range(3)]
    assert (await people.reject(proposed[1])).status_code == 200

    async def listed(**query: str) -> tuple[list[str], str | None]:
        reply = await sample.client.get("/v1/proposals", params=query, headers=people.bob)
        return [each["proposal_id"] for each in reply.json()["items"]], reply.json()["next"]

    found, after = await listed(limit="2")
    assert found == proposed[:2]
    assert await listed(limit="2", after=after or "") == (proposed[2:], None)
    assert await listed(state="pending") == ([proposed[0], proposed[2]], None)
    assert await listed(state="rejected") == ([proposed[1]], None)


async def test_only_so_many_proposals_for_one_path_are_pending(sample: Sample, people: People) -> None:
    proposed = [(await people.propose()).json()["proposal_id"] for _ in range(MAX_PENDING)]
    refused = await people.propose()
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:muster:problem:too-many-proposals")
    assert "approve or reject one of them" in refused.json()["detail"]
    other = await sample.client.post(NOTES, json={"text": "old"})
    title = f"{NOTES}/{other.json()['note_id']}/title"
    assert (await sample.client.post(title, json={"text": "new"}, headers=people.ann)).status_code == 202
    assert (await people.reject(proposed[0])).status_code == 200
    assert (await people.propose()).status_code == 202


async def test_a_change_since_the_proposal_stops_it(sample: Sample, people: People) -> None:
    first = (await people.propose("first")).json()["proposal_id"]
    second = (await people.propose("second")).json()["proposal_id"]
    assert await people.outdated() == {first: False, second: False}
    assert (await people.approve(first)).status_code == 200
    assert await people.outdated() == {first: False, second: True}  # the first is decided
    assert (await people.proposal(second))["outdated"] is True
    late = await people.approve(second)
    assert (late.status_code, late.json()["type"]) == (409, "urn:muster:problem:proposal-outdated")
    assert (late.json()["seen"], late.json()["current"]) == (1, 2)
    assert late.json()["detail"].endswith("look at it, and propose the request again if it is still wanted")
    assert await people.text() == "first!"
    assert (await people.proposal(second))["state"] == "pending"
    assert (await people.reject(second)).json()["outdated"] is False
    gone = "update proposal set state = 'pending', route = 'POST /v1/gone' where proposal_id = $1"
    await sample.admin.execute(gone, second)
    assert await people.outdated() == {first: False, second: False}  # a route of another release: nobody knows


async def test_a_rejected_proposal_never_runs(sample: Sample, people: People) -> None:
    proposal_id = (await people.propose()).json()["proposal_id"]
    unfit = await people.reject(proposal_id, sample.bearer("sample:read", subject="eve"))
    assert unfit.status_code == 403
    for _ in range(2):
        rejected = await people.reject(proposal_id, people.ann)
        assert (rejected.status_code, rejected.json()["state"]) == (200, "rejected"), rejected.text
    refused = await people.approve(proposal_id)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:muster:problem:proposal-decided")
    assert await people.text() == "old"
    assert await people.trail() == [("Propose", "ann"), ("RejectProposal", "ann")]
    shown = await people.proposal(proposal_id)
    assert (shown["body"], shown["reason"]) == (None, "not now")


async def test_a_proposal_that_its_route_no_longer_accepts_can_be_rejected(sample: Sample, people: People) -> None:
    """Its body had a field of an earlier release, or its route is gone."""
    for change in ("body = '{\"x\": 1}'", "route = 'POST /v1/gone', path = '/v1/gone'"):
        proposal_id = (await people.propose()).json()["proposal_id"]
        await sample.admin.execute(f"update proposal set {change} where proposal_id = $1", proposal_id)
        assert (await people.approve(proposal_id)).status_code in {404, 422}
        if "gone" in change:  # nobody knows who was allowed to use it
            tenant = sample.bearer("sample:read", "sample:operate", agency="NASA", subject="bob")
            for unfit in (tenant, sample.bearer("sample:read", subject="bob")):
                assert (await people.reject(proposal_id, unfit)).status_code == 403
        rejected = await people.reject(proposal_id)
        assert (rejected.status_code, rejected.json()["state"]) == (200, "rejected"), rejected.text
        assert (await people.proposal(proposal_id))["body"] is None


async def test_a_proposal_expires(sample: Sample, people: People) -> None:
    proposed = (await people.propose()).json()
    proposal_id, expires_at = proposed["proposal_id"], datetime.fromisoformat(proposed["expires_at"])
    rejected = (await people.propose()).json()["proposal_id"]
    await people.reject(rejected)
    sample.clock.move(expires_at)
    late = await people.approve(proposal_id)
    assert (late.status_code, late.json()["reason"]) == (409, "expired")
    sample.clock.move(expires_at + timedelta(days=1))  # the scheduler is late
    service = sample.app.state.runtime.service
    async with sample.app.state.runtime.database.connection() as connection:
        due = await deadlines.due_first(connection, "NASA", sample.clock.now())
    context = Context(actor="sample", correlation_id="cor_1")
    async with sample.app.state.runtime.database.write("NASA", context=context) as uow:
        (deadline,) = await deadlines.take(uow, due)
        expire = service.deadline_handlers[deadline.kind]
        await expire(uow, [replace(deadline, subject=rejected), deadline])
    shown = await people.proposal(proposal_id)
    assert (shown["state"], shown["body"], shown["decided_at"]) == ("expired", None, proposed["expires_at"])
    assert (await people.trail())[-2:] == [("RejectProposal", "bob"), ("ExpireProposal", "sample")]
    assert (await people.proposal(rejected))["state"] == "rejected"  # nothing happens to what was decided
    assert await people.text() == "old"


async def test_proposals_are_listed_in_pages_oldest_first(sample: Sample, people: People) -> None:
    proposed = sorted([(await people.propose()).json()["proposal_id"] for _ in range(3)])
    assert (await people.reject(proposed[1])).status_code == 200
    for of_state, expected in (("", proposed), ("state=pending&", [proposed[0], proposed[2]])):
        listed: list[str] = []
        cursor = ""
        while cursor is not None:
            page = await sample.client.get(f"/v1/proposals?{of_state}limit=1{cursor}", headers=people.bob)
            assert page.status_code == 200, page.text
            listed += [each["proposal_id"] for each in page.json()["items"]]
            assert len(listed) <= len(expected)
            cursor = page.json()["next"] and f"&after={page.json()['next']}"
        assert listed == expected


async def test_a_proposal_tells_when_it_was_made_and_when_it_was_decided(sample: Sample, people: People) -> None:
    made, day = sample.clock.now() + timedelta(days=1), timedelta(days=1)
    sample.clock.move(made)  # from now on, it does not move
    approved, rejected, expiring = [(await people.propose()).json()["proposal_id"] for _ in range(3)]
    sample.clock.move(made + day)
    assert (await people.reject(rejected)).status_code == 200
    sample.clock.move(made + 2 * day)
    assert (await people.approve(approved)).status_code == 200
    sample.clock.move(made + 9 * day)
    async with sample.app.state.runtime.database.write("NASA", context=Context(actor="s", correlation_id="c")) as uow:
        due = [Deadline(PROPOSAL_EXPIRED, "NASA", each, made + 7 * day) for each in (approved, rejected, expiring)]
        await on_proposal_expired_due(uow, due)  # what is decided stays so
    shown = [await people.proposal(each) for each in (approved, rejected, expiring)]
    assert [each["state"] for each in shown] == ["approved", "rejected", "expired"]
    assert {datetime.fromisoformat(each["proposed_at"]) for each in shown} == {made}
    decided = [datetime.fromisoformat(each["decided_at"]) for each in shown]
    assert decided == [made + 2 * day, made + day, made + 7 * day]
