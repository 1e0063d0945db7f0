"""Quotas: what a client and an agency may send and read, what the replies say, and what is stored."""

import time

import pytest

from muster_runtime.http.identity import Identity
from muster_runtime.http.rate_limits import Fields, PersonalReadLimit, Quota, QuotaExceeded, RateLimits


class Instant:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


def identity(actor: str = "ada", agency: str = "NASA") -> Identity:
    return Identity(actor, frozenset(), frozenset({agency}))


def standing(fields: Fields) -> str:
    return dict(fields)[b"ratelimit"].decode()


def sent(limits: RateLimits | PersonalReadLimit, who: Identity, requests: int) -> int:
    """How many of this many requests are accepted."""
    taken = 0
    for _ in range(requests):
        try:
            limits.take(who)
        except QuotaExceeded:
            continue
        taken += 1
    return taken


@pytest.mark.parametrize("per_second", [1, 3, 7, 300, 999])
def test_a_client_may_send_its_quota_at_once_and_then_the_same_in_each_second(per_second: int) -> None:
    instant = Instant()
    limits = RateLimits(per_second, 10_000, instant)
    assert sent(limits, identity(), 2 * per_second) == per_second
    for _ in range(3):
        instant.seconds += 1
        assert sent(limits, identity(), 2 * per_second) == per_second
    instant.seconds += 1 / per_second + 1e-5
    assert sent(limits, identity(), 2) == 1


def test_a_refused_request_costs_nothing_and_names_the_quota() -> None:
    instant = Instant()
    limits = RateLimits(2, 3, instant)
    assert sent(limits, identity("ada"), 5) == 2
    assert sent(limits, identity("grace"), 5) == 1  # the agency's is used up
    with pytest.raises(QuotaExceeded) as agency:
        limits.take(identity("grace"))
    assert agency.value.extensions == {"violated-policies": ["agency"]}
    assert standing(limits.fields(identity("grace"))) == '"token";r=1;t=1, "agency";r=0;t=1'
    with pytest.raises(QuotaExceeded) as token:
        limits.take(identity("ada"))
    assert token.value.extensions == {"violated-policies": ["token"]}


def test_another_token_of_the_same_client_shares_its_quota_and_another_agency_does_not() -> None:
    limits = RateLimits(2, 100, Instant())
    assert sent(limits, identity("ada"), 2) == 2
    assert sent(limits, Identity("ada", frozenset({"more"}), frozenset({"NASA"})), 1) == 0
    assert sent(limits, identity("ada", "DOE"), 1) == 1


def test_an_agencys_quota_does_not_apply_to_the_program() -> None:
    limits = RateLimits(5, 1, Instant())
    assert sent(limits, identity("officer", "*"), 9) == 5
    assert dict(limits.fields(identity("officer", "*"))) == {
        b"ratelimit-policy": b'"token";q=5;w=1',
        b"ratelimit": b'"token";r=0;t=1',
    }
    assert dict(limits.fields(identity()))[b"ratelimit-policy"] == b'"token";q=5;w=1, "agency";q=1;w=1'


def test_a_client_may_read_about_people_its_quota_at_once_and_then_the_same_in_each_minute() -> None:
    instant = Instant()
    limit = PersonalReadLimit(600, instant)
    assert sent(limit, identity(), 700) == 600
    assert sent(limit, identity("grace"), 700) == 600
    instant.seconds += 1  # what Retry-After states
    assert sent(limit, identity(), 700) == 10
    instant.seconds += 60
    assert sent(limit, identity(), 700) == 600
    with pytest.raises(QuotaExceeded, match="may read names or addresses 600 times per minute") as refused:
        limit.take(identity())
    assert refused.value.extensions == {"violated-policies": ["personal-reads"]}


def test_only_the_holders_of_the_last_second_are_remembered() -> None:
    quota = Quota("token", 300)
    for number in range(50_000):  # ten thousand a second
        quota.take(number, 1_000.0 + number / 10_000)
    assert len(quota) < 500
    for number in range(1_000):
        quota.take(number, 2_000.0)
    quota.take("last", 2_010.0)
    for number in range(1_000):
        quota.take("last", 2_010.0 + number)
    assert len(quota) == 1


def test_counting_and_reporting_take_microseconds() -> None:
    """They would pass even if they took a hundred times as long as on this machine."""
    limits = RateLimits(1_000_000, 1_000_000)
    identities = [identity(str(number), f"A{number % 50}") for number in range(1_000)]
    since = time.perf_counter()
    for who in identities:
        limits.take(who)
        limits.fields(who)
    each = (time.perf_counter() - since) / len(identities)
    print(f"{each * 1e6:.1f} µs")
    assert each < 0.001
