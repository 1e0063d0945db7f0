"""Quotas: periods, what pays for a use, and what is published once."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from muster_contracts.entitlements import AccessMode, QuotaPeriod, QuotaScope
from muster_entitlements.domain.catalog import Feature, Quota
from muster_entitlements.domain.charges import Charge
from muster_entitlements.domain.grants import Grant
from muster_entitlements.domain.meters import Meter, Terms
from muster_entitlements.domain.quotas import (
    EXCEEDED,
    Limit,
    Period,
    QuotaGrant,
    Sum,
    Used,
    available,
    whose,
)
from muster_entitlements.domain.usage import EVENT_TYPE, Use, check_open, check_time, read_record, read_use
from muster_entitlements.domain.windows import Window
from muster_entitlements.repository.usage_intake import StoredRecord
from muster_runtime.errors import InvalidInput

ZONE = ZoneInfo("UTC")
AT = datetime(2025, 10, 20, tzinfo=UTC)
WINDOW = Window(
    window_id="win_1",
    agency_id="NASA",
    enrollment_id="enr_1",
    feature="deep-research",
    trial=True,
    mode=AccessMode.UNLIMITED,
    starts_at=datetime(2025, 8, 6, tzinfo=UTC),
    ends_at=datetime(2025, 10, 5, tzinfo=UTC),
    mode_after=AccessMode.QUOTA,
    monthly_quota_after=25,
    catalog_number=1,
)
FEATURE = Feature(
    key="deep-research",
    name="Deep Research",
    mode="unlimited",
    trial_days=60,
    mode_after="quota",
    quota=Quota(limit=10),
)


def total(used: int = 0, granted: int = 0, excess: int = 0, told: int = 0) -> Sum:
    start, end = datetime(2025, 10, 5, tzinfo=UTC), datetime(2025, 11, 1, tzinfo=UTC)
    return Sum("NASA", "deep-research", "sub_1", start, end, used, granted, excess, told)


def grant(number: int, amount: int, priority: int = 0, ends_at: datetime | None = None) -> QuotaGrant:
    return QuotaGrant("NASA", f"qgr_{number}", "deep-research", "sub_1", amount, 0, priority, AT, ends_at)


@pytest.mark.parametrize(
    ("at", "zone", "starts_at", "ends_at"),
    [
        ("2025-08-20T00:00Z", "UTC", "2025-08-06T00:00Z", "2025-09-01T00:00Z"),  # the window's start cuts it
        ("2025-10-04T23:59Z", "UTC", "2025-10-01T00:00Z", "2025-10-05T00:00Z"),  # unlimited use has its own period
        ("2025-10-05T00:00Z", "UTC", "2025-10-05T00:00Z", "2025-11-01T00:00Z"),
        ("2025-11-01T03:59Z", "America/New_York", "2025-10-05T00:00Z", "2025-11-01T04:00Z"),
        ("2025-12-01T05:00Z", "America/New_York", "2025-12-01T05:00Z", "2026-01-01T05:00Z"),
    ],
)
def test_a_period_is_a_month_of_the_agencys_calendar_cut_by_the_window(
    at: str, zone: str, starts_at: str, ends_at: str
) -> None:
    found = Period.of(datetime.fromisoformat(at), Quota(limit=1), WINDOW, ZoneInfo(zone))
    assert found == Period(datetime.fromisoformat(starts_at), datetime.fromisoformat(ends_at))


@pytest.mark.parametrize(
    ("zone", "first"),
    [
        ("Pacific/Guam", "2025-10-31T14:00Z"),  # east of UTC, the month begins earlier
        ("America/Los_Angeles", "2025-11-01T07:00Z"),  # and ends at 8:00, after the summer time
        ("America/Havana", "2020-11-01T05:00Z"),  # the clocks go back from 1:00 to 0:00: the later one
        ("America/Asuncion", "2017-10-01T04:00Z"),  # the clocks go forward at 0:00, which does not exist
        ("Pacific/Apia", "2011-12-01T10:00Z"),  # in this month, a whole day does not exist
    ],
)
def test_a_month_begins_at_its_start_in_the_agencys_time_zone(zone: str, first: str) -> None:
    starts_at, second = datetime.fromisoformat(first), timedelta(microseconds=1)
    found = Period.of(starts_at, None, None, ZoneInfo(zone))
    before = Period.of(starts_at - second, None, None, ZoneInfo(zone))
    assert before.ends_at == found.starts_at == starts_at
    assert Period.of(found.ends_at - second, None, None, ZoneInfo(zone)) == found
    assert found.starts_at <= starts_at < found.ends_at
    assert timedelta(days=28) < found.ends_at - found.starts_at < timedelta(days=32)


def test_a_rolling_period_runs_between_anchor_days_or_the_last_day_of_a_short_month() -> None:
    quota = Quota(limit=1, period=QuotaPeriod.ANCHOR)
    start = datetime(2025, 10, 31, tzinfo=UTC)
    window = replace(WINDOW, starts_at=start, ends_at=start)
    starts = [datetime(2025, month, day, tzinfo=UTC) for month, day in ((10, 31), (11, 30), (12, 31))]
    for first, second in itertools.pairwise(starts):
        for at in (first, second - timedelta(microseconds=1)):
            assert Period.of(at, quota, window, ZONE) == Period(first, second)


@pytest.mark.parametrize(
    ("zone", "starts"),
    [
        ("Pacific/Guam", ["2025-03-01T00:00+10:00", "2025-04-01T00:00+10:00", "2025-05-01T00:00+10:00"]),
        ("Europe/Berlin", ["2026-02-28T00:00+01:00", "2026-03-28T00:00+01:00", "2026-04-28T00:00+02:00"]),
        ("America/New_York", ["2025-08-06T00:00-04:00", "2025-10-06T00:00-04:00", "2025-11-06T00:00-05:00"]),
        ("America/St_Johns", ["2009-08-31T23:30-02:30", "2009-10-31T23:30-03:30", "2009-11-30T23:30-03:30"]),
        ("America/Havana", ["2025-11-02T00:30-04:00", "2025-12-02T00:30-05:00"]),  # the first of two such times
    ],
)
def test_a_rolling_period_follows_the_agencys_clocks(zone: str, starts: list[str]) -> None:
    quota = Quota(limit=1, period=QuotaPeriod.ANCHOR)
    instants = [datetime.fromisoformat(start).astimezone(UTC) for start in starts]
    window = replace(WINDOW, starts_at=instants[0], ends_at=instants[0])
    for start in instants:
        found, before = (
            Period.of(at, quota, window, ZoneInfo(zone)) for at in (start, start - timedelta(microseconds=1))
        )
        assert found.starts_at == before.ends_at == start
    for at in (instants[-2] + timedelta(hours=hours) for hours in range(24 * 28)):
        assert Period.of(at, quota, window, ZoneInfo(zone)) == Period(instants[-2], instants[-1])


@pytest.mark.parametrize("period", list(QuotaPeriod))
def test_an_extension_continues_the_period_and_a_new_start_begins_a_new_one(period: QuotaPeriod) -> None:
    quota, at = Quota(limit=1, period=period), datetime(2025, 10, 2, tzinfo=UTC)
    window = replace(WINDOW, mode=AccessMode.QUOTA)
    before = Period.of(at, quota, window, ZONE)
    assert before.ends_at == window.ends_at
    extended = replace(window, ends_at=window.ends_at + timedelta(days=90))
    after = Period.of(at, quota, extended, ZONE)
    assert (after.starts_at, after.ends_at > before.ends_at) == (before.starts_at, True)
    assert Period.of(window.ends_at, quota, extended, ZONE) == after
    moved = replace(extended, starts_at=at)
    assert Period.of(window.ends_at, quota, moved, ZONE).starts_at == at


def feature_grant(subject_ref: str | None, quota: int | None, **more: object) -> Grant:
    mode = AccessMode.UNLIMITED if quota is None else AccessMode.QUOTA
    known = {"starts_at": AT, "ends_at": None, "reason": "pilot", **more}
    return Grant("grt_1", "NASA", FEATURE.key, subject_ref, mode, quota, **known)  # type: ignore[arg-type]


def test_a_grant_decides_before_the_window_which_determines_when_a_quota_applies() -> None:
    meter = Meter(ZONE, {FEATURE.key: WINDOW}, {})

    def quota(at: datetime, subject_ref: str = "sub_1", meter: Meter = meter) -> tuple[int | None, bool]:
        terms = meter.terms(FEATURE, subject_ref, at)
        assert terms.period == Period.of(at, FEATURE.quota, WINDOW, ZONE)
        return terms.quota.limit if terms.quota else None, terms.given

    end, second = WINDOW.ends_at, timedelta(seconds=1)
    assert (quota(end - second), quota(end)) == ((None, False), (10, False))
    assert Meter(ZONE, {}, {}).terms(FEATURE, "sub_1", AT) == Terms(Period.of(AT, None, None, ZONE), None)
    assert whose(Quota(limit=1, per=QuotaScope.AGENCY), "sub_1") == ""

    revoked = feature_grant("sub_1", None, revoked_at=AT + 9 * second)
    key = FEATURE.key
    granted = replace(meter, grants={(key, "sub_1"): [revoked], (key, None): [feature_grant(None, 3)]})
    assert [quota(AT + n * second, meter=granted) for n in (-1, 0, 9)] == [(10, False), (None, True), (3, False)]
    assert quota(AT, "sub_2", granted) == (3, False)

    of_seats = replace(WINDOW, trial=False, seat_days=10, ends_at=datetime(2026, 8, 6, tzinfo=UTC))
    seats = replace(meter, windows={key: of_seats}, begun={"sub_1": AT})
    trial_end = AT + timedelta(days=10)
    assert [seats.terms(FEATURE, "sub_1", at).given for at in (trial_end - second, trial_end)] == [True, False]
    for each in (meter, granted, seats):
        for days, who in itertools.product((0, 40, 5, -20, 11, -1), ("sub_1", "sub_2", "sub_1")):
            forgetful = replace(each)  # what a meter remembers changes nothing
            at = AT + timedelta(days=days)
            assert each.terms(FEATURE, who, at) == forgetful.terms(FEATURE, who, at)
    assert seats.terms(FEATURE, "sub_1", trial_end).quota == Quota(limit=10)
    assert seats.terms(FEATURE, "sub_2", trial_end).given  # whose trial has not begun

    grace = replace(WINDOW, grace_days=3)
    lasts = replace(meter, windows={key: grace}).terms(FEATURE, "sub_1", end + timedelta(days=2))
    assert lasts == Terms(Period(datetime(2025, 10, 1, tzinfo=UTC), end + timedelta(days=3)), None)


def test_what_a_used_up_quota_leaves_changes_when_a_grant_begins_or_ends() -> None:
    soon, late = AT + timedelta(days=1), AT + timedelta(days=9)
    limit = Limit("NASA", "deep-research", Quota(limit=10), Period(AT, late))
    ahead = replace(grant(1, 5, ends_at=late), starts_at=soon)
    for used, at, expected in ((9, AT, None), (10, AT, soon), (10, soon, late), (10, late, None)):
        assert Used.of(total(used), limit, [ahead, grant(2, 5)], at).changes_at == expected


def test_use_above_an_earlier_limit_counts_against_a_higher_one() -> None:
    reported, raised = Charge(Quota(limit=10), total(), 15, AT).paid_by([]), Quota(limit=20)
    at_once = Charge(raised, total(), 15, AT).paid_by([])
    assert (reported.excess, at_once.excess) == (5, 0)
    for count in (reported, at_once):
        assert available(raised, count.total, [], AT) == 5
        assert Charge(raised, count.total, 6, AT).paid_by([]).excess == 1
    paid = Charge(Quota(limit=10), total(), 15, AT).paid_by([grant(1, 5)])
    assert available(raised, paid.total, [], AT) == 10


def test_thresholds_and_excess_are_reported_once() -> None:
    quota, sum_ = Quota(limit=10), total()
    told: list[object] = []
    for _ in range(14):
        count = Charge(quota, sum_, 1, AT).paid_by([])
        told += [*count.thresholds, *(["exceeded"] if count.exceeded else [])]
        sum_ = count.total
    assert told == [50, 80, 100, "exceeded"]
    assert (sum_.used, sum_.excess, sum_.told) == (14, 4, EXCEEDED)  # the earlier release reads it
    assert Charge(quota, total(), 30, AT).paid_by([]).thresholds == [50, 80, 100]


DATA = {"agency_id": "NASA", "subject_ref": "sub_" + "0" * 32, "feature": "deep-research", "amount": 2}
EVENT = {
    "specversion": "1.0",
    "id": "1",
    "source": "/research",
    "type": EVENT_TYPE,
    "time": "2025-10-20T08:00:00+02:00",
    "data": DATA,
}


def _record(headers: Sequence[tuple[str, bytes]], value: bytes | None) -> StoredRecord:
    return StoredRecord("usage", 0, 0, None, headers, value)


def test_a_record_that_is_too_large_is_refused() -> None:
    with pytest.raises(InvalidInput, match="record: '65540 bytes' is invalid: must have at most 65536 bytes"):
        read_record(_record([("large", b"x" * 60_000)], b"x" * 5_535))


def test_an_event_is_read() -> None:
    use = read_use(EVENT)
    value = json.dumps(DATA).encode()
    binary = [(f"ce_{name}", str(text).encode()) for name, text in EVENT.items() if name != "data"]
    json_alone = [*binary, ("content-type", b"application/json")]
    assert read_record(_record(json_alone, value)) == use
    structured = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
    assert read_record(_record(structured, json.dumps(EVENT).encode())) == use
    for headers, broken in ((binary, b"{"), (binary, None), (structured, b"[1]"), ([("ce_id", b"\xff")], value)):
        with pytest.raises(InvalidInput):
            read_record(_record(headers, broken))
    assert isinstance(use, Use)
    assert (use.agency_id, use.amount, use.at) == ("NASA", 2, datetime(2025, 10, 20, 6, tzinfo=UTC))
    again = read_use({**EVENT, "time": "2025-10-20T06:00:00Z", "extension": "ignored"})
    assert again == use
    assert read_use({**EVENT, "source": "/other"}).event != use.event
    assert read_use({**EVENT, "data": DATA | {"amount": 3}}).content != use.content


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("specversion", {"specversion": "0.3"}),
        ("id", {"id": ""}),
        ("source", {"source": None}),
        ("type", {"type": "com.example.used"}),
        ("time", {"time": "2025-10-20T08:00:00"}),
        ("time", {"time": "2025-13-20T08:00:00Z"}),
        ("time", {"time": 1760940000}),
        ("data.subject_ref", {"data": DATA | {"subject_ref": "ada@nasa.gov"}}),
        ("data", {"data": "x"}),
        ("data.agency_id", {"data": {"agency_id": "nasa", "feature": "x"}}),
        ("data.feature", {"data": {"agency_id": "NASA"}}),
        *(
            ("data.amount", {"data": {"agency_id": "NASA", "feature": "x", "amount": amount}})
            for amount in (0, -1, 1.5, True, "1", None, 10**7)
        ),
    ],
)
def test_a_bad_event_names_its_attribute(field: str, change: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as refusal:
        read_use({**EVENT, **change})
    assert refusal.value.extensions["errors"][0]["field"] == field


def test_use_in_the_future_or_of_a_closed_period_is_refused() -> None:
    end = datetime(2025, 11, 1, tzinfo=UTC)
    check_open(AT, end, end + timedelta(days=5) - timedelta(seconds=1))
    check_time(AT + timedelta(seconds=59), AT, AT)
    check_time(AT, AT + timedelta(days=40), AT + timedelta(days=36))
    with pytest.raises(InvalidInput):
        check_open(AT, end, end + timedelta(days=5))
    far = [datetime(year, 1, 1, tzinfo=UTC) for year in (1, 9999)]
    for at in (AT + timedelta(minutes=2), AT - timedelta(days=38), *far):
        with pytest.raises(InvalidInput):
            check_time(at, AT, AT)
