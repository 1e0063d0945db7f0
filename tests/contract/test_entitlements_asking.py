"""What the client and its JavaScript twin ask the service, and which of its answers they take."""

import json
from datetime import timedelta

import pytest

from muster_contracts.entitlements import AgencyAccess, SubjectAccess, SubjectAccessErased
from muster_contracts.testing import build, record
from muster_entitlements_client import Answer, EntitlementsClient, NotReady, Stale, Verdict
from tests.contract.subscribers.test_javascript import in_javascript
from tests.contract.test_entitlements_client import NOW, SUBJECT
from tests.contract.test_entitlements_readiness import AGENCY, PERSON, STRANGER, Following

COLLEAGUE = "sub_" + "1" * 32


async def test_the_service_is_asked_about_agencies_that_are_not_republished_yet() -> None:
    """A rebuild publishes one agency after another, and each agency's people first."""
    told = Answer(Verdict.ALLOWED, "window_open", None, 42)
    asked: list[str] = []

    async def ask(agency_id: str, *_: str | None) -> Answer:
        asked.append(agency_id)
        return told

    following = Following(fallback=ask)
    following.take(AGENCY, record(build(SubjectAccess, agency_id="NIH", subject_ref=STRANGER)))
    client = following.client
    for agency_id in (None, "NIH"):
        with pytest.raises(NotReady, match="NIH has not arrived"):
            client.check(STRANGER, agency_id=agency_id)
        assert await client.check_or_ask(STRANGER, agency_id=agency_id) == told
    assert client.check(SUBJECT, agency_id="DOE").reason == "unknown"  # like the service's answer, if it never enrolled
    assert await client.check_or_ask(SUBJECT, agency_id="DOE") == told
    assert asked == ["NIH", "NIH", "DOE"]
    following.take(AT_NASA)
    assert (await client.check_or_ask(SUBJECT, agency_id="NASA")).reason == "no_seat"
    alone = Following()
    alone.take(AGENCY)
    assert (await alone.client.check_or_ask(SUBJECT, agency_id="DOE")).reason == "unknown"


# A command has published NASA's own record; its people come, go, and move to NIH.
AT_NASA = record(build(SubjectAccess, subject_ref=COLLEAGUE))
AT_NIH = record(build(SubjectAccess, agency_id="NIH", subject_ref=COLLEAGUE))
PUBLISHED = [
    [AGENCY],
    [PERSON],
    [record(build(SubjectAccessErased, subject_ref=SUBJECT))],
    [AT_NASA, AT_NASA],
    [AT_NIH, record(build(AgencyAccess, agency_id="NIH"))],
]
ASKED = ["asked NASA", "no_seat", "asked NASA", "no_seat", "asked NASA"]


async def test_the_service_is_asked_about_an_agency_without_published_people() -> None:
    async def ask(agency_id: str, *_: str | None) -> Answer:
        return Answer(Verdict.ALLOWED, f"asked {agency_id}", None, 42)

    following, reasons = Following(fallback=ask), []
    for records in PUBLISHED:
        following.take(*records)
        assert following.client.check(STRANGER, agency_id="NASA").reason == "no_seat"
        reasons.append((await following.client.check_or_ask(STRANGER, agency_id="NASA")).reason)
    assert reasons == ASKED
    assert (await following.client.check_or_ask(STRANGER)).reason == "no_seat"


async def test_the_service_is_never_asked_about_an_address() -> None:
    """It would be in the URL, also when the copy cannot answer."""
    asked: list[str | None] = []

    async def ask(*question: str | None) -> Answer:
        asked.extend(question)
        return Answer(Verdict.ALLOWED, "window_open", None, 42)

    loading = Following(fallback=ask)
    stale = Following(fallback=ask, max_staleness_seconds=-1)
    stale.take(AGENCY, PERSON)
    filling = Following(fallback=ask)
    filling.take(PERSON, record(build(AgencyAccess, agency_id="NIH")))
    for following in (loading, stale, filling):
        assert (await following.client.check_or_ask(STRANGER, agency_id="NASA")).reason == "window_open"
        asked.clear()
        for subject in ("ada@nasa.gov", "", None):
            with pytest.raises(ValueError, match="subject_ref must be sub_ and 32 hexadecimal digits"):
                await following.client.check_or_ask(subject, agency_id="NASA")  # type: ignore[arg-type]
    assert asked == []


def test_the_twin_asks_the_service_as_the_client_does() -> None:
    program = f"""
        const {{ AccessCopy, NotReady }} = await import("./access.mjs");
        const copy = new AccessCopy();
        const ask = async (agency, subject, feature) => ({{ reason: `asked ${{agency}}`, subject, feature }});
        const reason = async (agency, subject = {STRANGER!r}) =>
          (await copy.checkOrAsk(ask, subject, null, "{NOW.isoformat()}", agency)).reason;
        const refused = async (agency) => reason(agency).catch((error) => error instanceof NotReady);
        const steps = {json.dumps([len(records) for records in PUBLISHED])};
        const found = [await reason("NASA"), await refused(null)];
        copy.expect([]);
        for (const step of steps) {{
          for (const record of records.splice(0, step)) copy.take(record);
          found.push(await reason("NASA"));
        }}
        found.push(await reason("DOE"), await reason(null), await reason(null, {COLLEAGUE!r}));
        console.log(JSON.stringify(found));
    """
    found = in_javascript(program, [item for records in PUBLISHED for item in records])
    assert found == ["asked NASA", True, *ASKED, "asked DOE", "no_seat", "seat_assigned"]


@pytest.mark.parametrize(
    ("arriving", "reason", "times"), [([0], "first", 1), ([1, 1], None, 2), ([1, 0], "second", 2), ([2], "refused", 1)]
)
async def test_an_answer_that_ended_on_its_way_allows_nobody(
    arriving: list[int], reason: str | None, times: int
) -> None:
    """For each answer: 0 if it arrives in time, 1 if it has ended, 2 if it refuses."""
    clock, asked = [NOW], 0

    async def ask(*_: str | None) -> Answer:
        nonlocal asked
        late, asked = arriving[asked], asked + 1
        verdict, ends_at = Verdict.REFUSED if late == 2 else Verdict.ALLOWED, clock[0] + timedelta(seconds=1)
        clock[0] += timedelta(seconds=1 if late else 0.5)
        return Answer(verdict, "refused" if late == 2 else ["first", "second"][asked - 1], ends_at, 42)

    client = EntitlementsClient({"bootstrap_servers": "127.0.0.1:1"}, now=lambda: clock[0], fallback=ask)
    if reason is None:
        with pytest.raises(Stale, match="had ended when they arrived"):
            await client.check_or_ask(SUBJECT, agency_id="NASA")
    else:
        assert (await client.check_or_ask(SUBJECT, agency_id="NASA")).reason == reason
    assert asked == times


def test_nor_does_the_twin_take_an_answer_that_ended_on_its_way() -> None:
    program = f"""
        const {{ AccessCopy, Stale }} = await import("./access.mjs");
        const now = "{NOW.isoformat()}";
        let asked = 0;
        const until = (verdict, ...instants) =>
          async () => ({{ verdict, valid_until: instants[asked], asked: ++asked }});
        const failed = (error) => error instanceof Stale && `stale after ${{asked}}`;
        const found = [];
        for (const ask of [
          until("allowed", "2025-09-01T00:00:00Z", "2025-09-01T00:01:00Z"),
          until("allowed", "2025-09-01T00:00:00Z", "2025-09-01T00:00:00.000001Z"),
          until("allowed", null),
          until("refused", "2025-09-01T00:00:00Z"),
        ]) {{
          asked = 0;
          const answer = new AccessCopy().checkOrAsk(ask, {SUBJECT!r}, null, now, "NASA");
          found.push(await answer.then((each) => each.asked, failed));
        }}
        console.log(JSON.stringify(found));
    """
    assert in_javascript(program, []) == [2, "stale after 2", 1, 1]
