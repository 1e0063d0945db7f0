"""Limits how many requests one client and one agency may send to a process, whatever its free capacity.

A second limit is for reads of names and addresses, because each of them stores a row. A quota uses the generic cell
rate algorithm (GCRA, ITU-T I.371), which stores one instant per holder. Two headers of each response show a client what
is left of its requests (draft-ietf-httpapi-ratelimit-headers-10).
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from muster_runtime.errors import TooManyRequests
from muster_runtime.http.identity import Identity

# The period of a quota of requests, and the time after which it is full again: `w` and `t` in the headers.
WINDOW_SECONDS = 1

MINUTE_SECONDS = 60

Fields = list[tuple[bytes, bytes]]


class QuotaExceeded(TooManyRequests):
    """The caller has sent more requests than its quota allows. A moment later, it may send more."""

    slug = "quota-exceeded"
    title = "The quota of requests is used up"

    def __init__(self, quota: "Quota", limit: str) -> None:
        """`limit` is the beginning of a sentence, which says how much the quota allows."""
        super().__init__(
            f"{limit} a process; wait for as many seconds as Retry-After states", **{"violated-policies": [quota.name]}
        )


class Quota:
    """A number of requests for each holder in a window of seconds. A holder may send all of them at once.

    It remembers only the holders of the last window, so its memory is limited by what the process serves in that time.
    """

    def __init__(self, name: str, requests: int, window: int = WINDOW_SECONDS) -> None:
        self.name = name
        self.requests = requests
        self._window = window
        self._interval = window / requests
        # When each holder's quota is full again, ordered by last request.
        self._whole_at: OrderedDict[Hashable, float] = OrderedDict()

    def left(self, holder: Hashable, now: float) -> int:
        """How many requests the holder may send at `now`, in seconds of a monotonic clock."""
        used_seconds = max(0.0, self._whole_at.get(holder, now) - now)
        return math.floor((self._window - used_seconds) / self._interval + 1e-6)

    def take(self, holder: Hashable, now: float) -> None:
        """Count a request, and forget holders whose quota is full again."""
        self._whole_at[holder] = max(now, self._whole_at.get(holder, now)) + self._interval
        self._whole_at.move_to_end(holder)
        for _ in range(2):  # two for each request, so old holders are soon gone
            oldest = next(iter(self._whole_at))
            if self._whole_at[oldest] > now:
                break
            del self._whole_at[oldest]

    def __len__(self) -> int:
        """How many holders it remembers."""
        return len(self._whole_at)


class RateLimits:
    """A process's quotas.

    A client is a token's subject and agencies, not the token itself, so getting a new token for each request gains
    nothing. An agency's quota covers all its clients. Agencies that a token names together share one quota. The
    program's clients, which act for all agencies, have only the client quota.
    """

    def __init__(self, per_token: int, per_agency: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._token = Quota("token", per_token)
        self._agency = Quota("agency", per_agency)
        self._monotonic = monotonic

    def take(self, identity: Identity) -> None:
        """Count a verified token's request. Raises QuotaExceeded, without counting the request."""
        now = self._monotonic()
        held = self._held(identity)
        for quota, holder in held:
            if quota.left(holder, now) < 1:
                raise QuotaExceeded(quota, f"this {quota.name} may send {quota.requests} requests per second to")
        for quota, holder in held:
            quota.take(holder, now)

    def fields(self, identity: Identity) -> Fields:
        """The caller's quotas and what is left of them, as headers of its response."""
        now = self._monotonic()
        held = self._held(identity)
        policies = ", ".join(f'"{quota.name}";q={quota.requests};w={WINDOW_SECONDS}' for quota, _ in held)
        standing = ", ".join(f'"{quota.name}";r={quota.left(holder, now)};t={WINDOW_SECONDS}' for quota, holder in held)
        return [(b"ratelimit-policy", policies.encode()), (b"ratelimit", standing.encode())]

    def _held(self, identity: Identity) -> list[tuple[Quota, Hashable]]:
        token: list[tuple[Quota, Hashable]] = [(self._token, _client(identity))]
        return token if identity.is_program else [*token, (self._agency, identity.tenant)]


class PersonalReadLimit:
    """A process's quota of reads of names and addresses for each client, per minute."""

    def __init__(self, per_minute: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._quota = Quota("personal-reads", per_minute, MINUTE_SECONDS)
        self._monotonic = monotonic

    def take(self, identity: Identity) -> None:
        """Count a read. Raises QuotaExceeded, without counting it."""
        client, now = _client(identity), self._monotonic()
        if self._quota.left(client, now) < 1:
            times = f"{self._quota.requests} times per minute"
            raise QuotaExceeded(self._quota, f"this token may read names or addresses {times} from")
        self._quota.take(client, now)


def _client(identity: Identity) -> Hashable:
    return identity.actor, identity.tenant
