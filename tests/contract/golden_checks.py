"""The golden cases of checks: `python -m tests.contract.golden_checks` writes them as the service's own rules answer.

The file holds the records of the snapshot topic, and checks with the answer that any reader of them must give.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from muster_contracts import encode
from muster_entitlements.domain.catalog import Quota
from muster_entitlements.domain.checks import Answer, Question, Reason, check, count
from muster_entitlements.domain.grants import Grant, holding
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.quotas import WHOLE_AGENCY, PublishedUse, Used, whose
from muster_entitlements.domain.seats import HeldSeat, SeatState
from muster_entitlements.publishing.snapshots import agency_access, subjects_access
from muster_entitlements.replies import CheckReply
from tests.contract.golden_facts import (
    BEGAN_AT,
    BEGUN,
    END,
    GRANTED,
    HELD,
    INSTANT,
    INSTANTS,
    LATER,
    OPEN,
    POOLS,
    QUOTAS,
    SOON,
    START,
    TRIAL_END,
    further_of,
    granted_to,
    grants_of,
    own_of,
    subject,
    uses_of,
    windows_of,
)

# A person who held a seat of the first agency, and whom that agency erased.
GONE = subject(len(HELD) + 1)

# The end of a period that copies do not know.
FAR = datetime.max.replace(tzinfo=UTC)

FILE = Path(__file__).parents[2] / "contracts/client/golden_checks.json"


@dataclass(frozen=True)
class Case:
    """A check: its subject, and what the service knows about them."""

    pool: Pool | None
    agency_id: str
    subject_ref: str
    seat: SeatState | None
    feature: str | None
    now: datetime
    grants: tuple[Grant, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The case with the service's answer."""
        windows = windows_of(self.pool) if self.pool else {}
        window = windows.get(self.feature or "")
        grants = tuple(filter(self.concerns, self.grants))
        began_at = BEGUN.get(self.seat) if self.seat else None
        question = Question(self.pool, self.seat, self.feature, window, grants=grants, began_at=began_at)
        reply = CheckReply.of(self.counted(check(question, self.now))).model_dump(mode="json", exclude={"remaining"})
        return {
            "agency_id": self.agency_id,
            "subject_ref": self.subject_ref,
            "feature": self.feature,
            "now": text(self.now),
            "answer": reply,
        }

    def counted(self, answer: Answer) -> Answer:
        """The answer with the use of a quota as far as copies know it: as of its last threshold in the period."""
        if answer.reason is not Reason.QUOTA or self.pool is None:
            return answer
        granted = holding([grant for grant in self.grants if self.concerns(grant)], self.now)
        quota = QUOTAS[str(self.feature)] if granted is None else Quota(limit=granted.monthly_quota or 0)
        counted = whose(quota, self.subject_ref)
        further = [
            each
            for subject_ref, each in further_of(self.pool)
            if subject_ref in (WHOLE_AGENCY, counted) and each.feature == self.feature
        ]
        more = any(each.starts_at <= self.now and (each.ends_at is None or self.now < each.ends_at) for each in further)
        uses = [
            use
            for use in uses_of(self.pool)
            if (use.subject_ref, use.feature) == (counted, self.feature) and use.starts_at <= self.now < use.ends_at
        ]
        [use] = uses or [PublishedUse(self.pool.agency_id, counted, str(self.feature), 0, 0, 0, self.now, FAR)]
        free = max(0, quota.limit - use.charged)
        turns = [each for span in further for each in (span.starts_at, span.ends_at) if each and each > self.now]
        changes_at = None if free else min(turns, default=None)
        found = count(answer, Used(use.used, quota.limit, free + more, use.ends_at, changes_at), quota)
        if uses:
            return found
        until = None if found.valid_until == FAR else found.valid_until
        return replace(found, used=None, remaining=None, resets_at=None, valid_until=until)

    def concerns(self, grant: Grant) -> bool:
        """Whether a grant is for this feature, and to this person or their agency."""
        return grant.feature == self.feature and grant.subject_ref in (None, self.subject_ref)


def text(instant: datetime) -> str:
    """An instant as records write it."""
    return instant.isoformat().replace("+00:00", "Z")


def records() -> tuple[list[str], list[str]]:
    """The data of the agencies' and people's records, as the service publishes them before it erases some."""
    agencies, people = [], []
    for place, pool in enumerate(POOLS):
        shared = [grant for grant in grants_of(pool) if grant.subject_ref is None]
        together = own_of(pool, "", shared)
        agencies.append((encode(agency_access(pool, windows_of(pool), QUOTAS, together)) or b"").decode())
        seats = {subject(place * 16 + number): state for number, state in enumerate(HELD)}
        seats |= {GONE: SeatState.ACTIVE} if pool is OPEN else {}
        earlier = {subject(place * 16 + len(HELD)): SeatState.ACTIVE}
        person = granted_to(pool)
        own = {person: own_of(pool, person, [grant for grant in grants_of(pool) if grant.subject_ref == person])}
        for generation, states in ((pool.generation, seats), (pool.generation - 1, earlier)):
            held = {subject_ref: HeldSeat(state, BEGUN.get(state)) for subject_ref, state in states.items()}
            published = subjects_access(replace(pool, generation=generation), pool.revision, held, own)
            people += [(value or b"").decode() for value in published.values()]
    return agencies, people


def erased() -> list[str]:
    """The tombstones that follow: for an agency's own person, and for another agency's, who keeps their seat."""
    of_others = [(pool.agency_id, subject(HELD.index(GRANTED))) for pool in POOLS if pool is not OPEN]
    return [
        json.dumps({"agency_id": agency_id, "subject_ref": subject_ref})
        for agency_id, subject_ref in [(OPEN.agency_id, GONE), *of_others]
    ]


def cases() -> Iterator[Case]:
    """Every rule, and the instants around every change."""
    for now in INSTANTS:
        for feature in (None, "nothing-known", *windows_of(OPEN)):
            yield case(OPEN, SeatState.ASSIGNED, feature, now)
        for pool in POOLS:
            yield case(pool, SeatState.ASSIGNED, "deep-research", now)
            yield replace(case(pool, SeatState.ASSIGNED, "deep-research", now), subject_ref=subject(0xFFFF), seat=None)
    for now in (SOON - INSTANT, SOON, TRIAL_END, LATER - timedelta(days=5), LATER):
        for feature in ("advanced-voice-mode", "beside-the-catalog", "deep-research"):
            yield case(OPEN, SeatState.ASSIGNED, feature, now)
            yield case(OPEN, GRANTED, feature, now)
        yield case(POOLS[1], GRANTED, "deep-research", now)
    for now in (START, BEGAN_AT, BEGAN_AT + timedelta(days=50) - INSTANT, BEGAN_AT + timedelta(days=50), END - INSTANT):
        for state in (SeatState.ASSIGNED, SeatState.ACTIVE):
            yield case(OPEN, state, "by-seat", now)
            yield case(OPEN, state, "by-seat-later", now)
            yield case(OPEN, state, "by-seat-long", now)
    for now in (TRIAL_END + timedelta(days=27) - INSTANT, TRIAL_END + timedelta(days=27), LATER - timedelta(days=2)):
        yield case(OPEN, GRANTED, "deep-research", now)
        yield case(OPEN, GRANTED, "advanced-voice-mode", now)
    for now in (TRIAL_END + timedelta(days=days) for days in (0, 7, 14)):
        yield case(OPEN, GRANTED, "deep-research", now)
    for now in (SOON - INSTANT, SOON, SOON + timedelta(days=7), LATER - INSTANT, LATER):
        yield case(OPEN, SeatState.ASSIGNED, "shared", now)
        yield case(OPEN, GRANTED, "shared", now)
        yield case(OPEN, GRANTED, "soft", now)
    for now in (TRIAL_END + timedelta(days=10) - INSTANT, TRIAL_END + timedelta(days=10)):
        yield case(OPEN, SeatState.ACTIVE, "with-grace", now)
    for state in HELD:
        for feature in (None, "frontier-models", "advanced-voice-mode", "by-seat"):
            yield case(OPEN, state, feature, TRIAL_END)
    nobody = replace(case(OPEN, GRANTED, "frontier-models", TRIAL_END), seat=None)
    yield replace(nobody, subject_ref=subject(len(HELD)))  # from an earlier generation
    yield replace(nobody, subject_ref=subject(16 + HELD.index(GRANTED)))  # another agency's
    yield replace(nobody, subject_ref=GONE)
    yield replace(nobody, pool=None, agency_id="FTC", grants=())


def case(pool: Pool, state: SeatState, feature: str | None, now: datetime) -> Case:
    """A check of the agency's person whose seat is in this state."""
    person = subject(POOLS.index(pool) * 16 + HELD.index(state))
    return Case(pool, pool.agency_id, person, state, feature, now, grants_of(pool))


def golden() -> str:
    """The file: one record or case per line."""
    agencies, people = records()
    checks = [json.dumps(case.to_json()) for case in cases()]
    parts = {"agencies": agencies, "subjects": people, "erased": erased(), "checks": checks}
    body = ",\n".join(f'"{name}": [\n' + ",\n".join(lines) + "\n]" for name, lines in parts.items())
    return f"{{\n{body}\n}}\n"


if __name__ == "__main__":
    FILE.write_text(golden(), "utf-8")
