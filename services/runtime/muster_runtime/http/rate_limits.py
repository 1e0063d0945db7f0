"""How many requests a second one client and one agency may send to a process, whatever it has room for.

A quota is counted by the generic cell rate algorithm (GCRA, ITU-T I.371): one instant for each holder. Two fields of
each answer tell a client how it stands (draft-ietf-httpapi-ratelimit-headers-10).
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from muster_runtime.errors import TooManyRequests
from muster_runtime.http.identity import Identity

# The seconds in which a quota may be used, and after which all of it is there again: `w` and `t` of the fields.
WINDOW_SECONDS = 1

Fields = list[tuple[bytes, bytes]]


class QuotaExceeded(TooManyRequests):
    """The caller has sent more requests in a second than it may."""

    slug = "quota-exceeded"
    title = "Too many requests in a second"


class Quota:
    """So many requests a second for each holder, which may send all of them at once.

    It remembers the holders of the last second alone, so its memory is bounded by what the process serves in one.
    """

    def __init__(self, name: str, per_second: int) -> None:
        self.name = name
        self.per_second = per_second
        self._interval = WINDOW_SECONDS / per_second
        # When each holder has its whole quota again; who has asked last comes last.
        self._whole_at: OrderedDict[Hashable, float] = OrderedDict()

    def left(self, holder: Hashable, now: float) -> int:
        """How many requests the holder may send at the instant `now`, in seconds of a monotonic clock."""
        used_seconds = max(0.0, self._whole_at.get(holder, now) - now)
        return math.floor((WINDOW_SECONDS - used_seconds) / self._interval + 1e-6)

    def take(self, holder: Hashable, now: float) -> None:
        """Count a request, and forget holders that have their whole quota again."""
        self._whole_at[holder] = max(now, self._whole_at.get(holder, now)) + self._interval
        self._whole_at.move_to_end(holder)
        for _ in range(2):  # more than come: so the holders of an earlier second are gone soon
            oldest = next(iter(self._whole_at))
            if self._whole_at[oldest] > now:
                break
            del self._whole_at[oldest]

    def __len__(self) -> int:
        """How many holders it remembers."""
        return len(self._whole_at)


class RateLimits:
    """The quotas of a process.

    A client is a token's subject and agencies, not the token: a client that gets a new token for each request has no
    more than others. An agency's quota is for all its clients; agencies that tokens name together have one together.
    The program's clients, who act for all agencies, have only their own.
    """

    def __init__(self, per_token: int, per_agency: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._token = Quota("token", per_token)
        self._agency = Quota("agency", per_agency)
        self._monotonic = monotonic

    def take(self, identity: Identity) -> None:
        """Count a request of a verified token. Raises QuotaExceeded, and then counts nothing."""
        now = self._monotonic()
        held = self._held(identity)
        for quota, holder in held:
            if quota.left(holder, now) < 1:
                raise QuotaExceeded(
                    f"this {quota.name} may send {quota.per_second} requests per second to a process; "
                    "wait as long as Retry-After says",
                    **{"violated-policies": [quota.name]},
                )
        for quota, holder in held:
            quota.take(holder, now)

    def fields(self, identity: Identity) -> Fields:
        """How the caller stands, as the fields of its answer."""
        now = self._monotonic()
        held = self._held(identity)
        policies = ", ".join(f'"{quota.name}";q={quota.per_second};w={WINDOW_SECONDS}' for quota, _ in held)
        standing = ", ".join(f'"{quota.name}";r={quota.left(holder, now)};t={WINDOW_SECONDS}' for quota, holder in held)
        return [(b"ratelimit-policy", policies.encode()), (b"ratelimit", standing.encode())]

    def _held(self, identity: Identity) -> list[tuple[Quota, Hashable]]:
        token: list[tuple[Quota, Hashable]] = [(self._token, (identity.actor, identity.tenant))]
        return token if identity.is_program else [*token, (self._agency, identity.tenant)]
