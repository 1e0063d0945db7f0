"""The client: answers checks from the local copy, or over HTTP if configured."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from muster_entitlements_client.access_copy import NotReady, require_reference
from muster_entitlements_client.answers import Answer, Verdict
from muster_entitlements_client.follower import Follower

# Asks the service itself, given agency, subject, and feature.
Fallback = Callable[[str, str, str | None], Awaitable[Answer]]


class Stale(Exception):
    """The copy, or the service's answer, may be older than allowed."""


class EntitlementsClient:
    """Keeps a copy of all agencies' and people's access, and updates it while its block is open.

    `kafka` are aiokafka's options, such as bootstrap_servers. `topic_prefix` is the installation's. With
    `max_staleness_seconds`, no check is answered from a copy that may lag behind the topic by more than that; events
    still in entitlements' outbox do not count. `fallback` answers what the copy cannot. `now` returns the time, which
    decides what a window allows.

        async with EntitlementsClient({"bootstrap_servers": "kafka:9092"}) as client:
            await client.ready()
            answer = client.check("sub_01987b3e0000700080000000000000bb", "deep-research")
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        *,
        topic_prefix: str = "",
        max_staleness_seconds: float | None = None,
        fallback: Fallback | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._follower = Follower(kafka, topic_prefix)
        self._max_staleness = max_staleness_seconds
        self._fallback = fallback
        self._now = now
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._following = asyncio.create_task(self._follower.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
            if not self._following.cancelled():
                self._following.exception()  # mark it as retrieved: `failure` has it

    @property
    def staleness_seconds(self) -> float | None:
        """How long ago the copy was known to be complete, normally about a second; None if it is not complete."""
        return self._follower.staleness_seconds

    @property
    def failure(self) -> Exception | None:
        """Why the topic cannot be read now; None if it can. After Unreadable, it is no longer read."""
        return self._follower.failure

    def __len__(self) -> int:
        """How many people have a seat of any state."""
        return len(self._follower.copy)

    async def ready(self) -> None:
        """Wait until the copy is complete; it is not while the topic contains no agency.

        If following the topic has ended, raises the error that ended it.
        """
        if self._following is None:
            raise NotReady("the client's block is not open")
        complete = asyncio.create_task(self._follower.complete.wait())
        try:
            await asyncio.wait([complete, self._following], return_when=asyncio.FIRST_COMPLETED)
        finally:
            complete.cancel()
        if self._following.done():
            self._following.result()

    def check(self, subject_ref: str, feature: str | None = None, *, agency_id: str | None = None) -> Answer:
        """Whether a person may use a feature now, in microseconds; without a feature, whether they have a usable seat.

        With the agency, the answer for a person without a seat reflects the agency's state, as the service's does.
        Raises NotReady, also if following the topic has ended; Stale if a maximum staleness is set and exceeded; and
        ValueError for a subject that is not a reference, such as an e-mail address.
        """
        if self._following is not None and self._following.done():  # the copy lacks what came since
            raise NotReady("following the topic has ended: see `failure`")
        staleness = self._follower.staleness_seconds
        if staleness is None:
            raise NotReady("the copy is not complete: wait for ready()")
        if self._max_staleness is not None and staleness > self._max_staleness:
            raise Stale(f"the copy may be {staleness:.0f} s old, more than {self._max_staleness:g} s")
        return self._follower.copy.check(subject_ref, feature, self._now(), agency_id)

    async def check_or_ask(
        self, subject_ref: str, feature: str | None = None, *, agency_id: str | None = None
    ) -> Answer:
        """Like check, but asks the service if the copy cannot answer or may lack the agency.

        The copy may lack an agency that it does not know, or of which it knows nobody. Raises ValueError as check does,
        even if the copy cannot answer; its other errors if there is no fallback or no agency to ask about; Stale if the
        service's answers end before they arrive; and whatever the fallback raises.
        """
        try:
            answer = self.check(subject_ref, feature, agency_id=agency_id)
        except (NotReady, Stale):
            require_reference(subject_ref)  # the copy has not: an address must not be in the URL that the fallback asks
            agency_id = agency_id or self._follower.copy.agency_of(subject_ref)
            if self._fallback is None or agency_id is None:
                raise
        else:
            if self._fallback is None or agency_id is None or not self._may_lack(answer, agency_id):
                return answer
        for _ in range(2):  # an answer that ended on its way is asked for again
            answer = await self._fallback(agency_id, subject_ref, feature)
            if answer.verdict != Verdict.ALLOWED or answer.valid_until is None or self._now() < answer.valid_until:
                return answer
        raise Stale("the service's answers had ended when they arrived")

    def _may_lack(self, answer: Answer, agency_id: str) -> bool:
        """Whether a rebuild of the topic may not have published the agency, or its people, yet.

        A command may publish the agency's own record before the rebuild reaches its people.
        """
        if answer.reason == "no_seat":
            return not self._follower.copy.has_people_of(agency_id)
        return answer.reason == "unknown"
