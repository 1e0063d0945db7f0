"""The golden cases of checks: `python -m tests.contract.golden_checks` writes them as the service's own rules answer.

The file holds the records of the snapshot topic, and checks with the answer that whoever has read them must give.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from muster_contracts import encode
from muster_contracts.entitlements import AccessMode, Anchor
from muster_entitlements.domain.checks import Question, check
from muster_entitlements.domain.grants import Grant
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.quotas import PublishedUse
from muster_entitlements.domain.seats import HeldSeat, SeatState
from muster_entitlements.domain.snapshots import Own
from muster_entitlements.domain.windows import Window
from muster_entitlements.publishing.snapshots import agency_access, subjects_access
from muster_entitlements.replies import CheckReply

FILE = Path(__file__).parents[2] / "contracts/client/golden_checks.json"

START = datetime(2025, 8, 6, tzinfo=UTC)
TRIAL_END = datetime(2025, 10, 5, tzinfo=UTC)
END = datetime(2026, 8, 6, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)

INSTANTS = (START - INSTANT, START, TRIAL_END - INSTANT, TRIAL_END, END - INSTANT, END)

OPEN = Pool(
    agency_id="NASA",
    enrollment_id="enr_1",
    starts_at=START,
    ends_at=END,
    suspended=False,
    withdrawn_at=None,
    ended=False,
    cap=100,
    in_use=5,
    limit_met=False,
    revision=41,
    generation=2,
    revoking=0,
)

POOLS = (
    OPEN,
    replace(OPEN, agency_id="DOE", suspended=True),
    replace(OPEN, agency_id="EPA", withdrawn_at=TRIAL_END, ends_at=TRIAL_END),
    replace(OPEN, agency_id="HHS", ended=True),
    replace(OPEN, agency_id="DOD-USAF", withdrawn_at=TRIAL_END, suspended=True, ended=True),
)

# Granted to each agency, and to one person of it whose seat is of a state that allows use.
GRANTED = SeatState.ACTIVE
SOON, LATER = START + timedelta(days=30), START + timedelta(days=90)

# Of a check's reply, what a copy decides as the service does.
DECIDED = {"verdict", "reason", "valid_until", "revision", "monthly_quota"}

# The seats of these states have been used, and their trials have begun.
BEGAN_AT = START + timedelta(days=14, hours=3, microseconds=1)
BEGUN = {SeatState.ACTIVE: BEGAN_AT, SeatState.SUSPENDED: START - timedelta(days=100)}

HELD: list[SeatState] = [state for state in SeatState if state is not SeatState.REVOKED]


def grants_of(pool: Pool) -> tuple[Grant, ...]:
    """A grant of each kind."""

    def grant(
        feature: str,
        mode: AccessMode = AccessMode.UNLIMITED,
        subject_ref: str | None = None,
        starts_at: datetime = TRIAL_END,
        ends_at: datetime | None = None,
    ) -> Grant:
        quota = 7 if mode is AccessMode.QUOTA else None
        return Grant("grt_1", pool.agency_id, feature, subject_ref, mode, quota, starts_at, ends_at, "pilot")

    own = subject(POOLS.index(pool) * 16 + HELD.index(GRANTED))
    return (
        grant("advanced-voice-mode", ends_at=LATER),
        grant("beside-the-catalog", AccessMode.QUOTA, starts_at=SOON),
        grant("deep-research", AccessMode.QUOTA, own, SOON, LATER),
        grant("advanced-voice-mode", AccessMode.QUOTA, own, LATER - timedelta(days=5)),
    )


def uses_of(pool: Pool) -> tuple[PublishedUse, ...]:
    """What a person has used of their quotas, and what all of the agency have."""
    own = subject(POOLS.index(pool) * 16 + HELD.index(GRANTED))

    def use(subject_ref: str, feature: str, used: int, ends_at: datetime) -> PublishedUse:
        return PublishedUse(pool.agency_id, subject_ref, feature, used, 25, ends_at - timedelta(days=27), ends_at)

    return (
        use(own, "advanced-voice-mode", 20, LATER - timedelta(days=2)),
        use(own, "deep-research", 13, TRIAL_END + timedelta(days=27)),
        use("", "used-up", 30, TRIAL_END),
    )


def windows_of(pool: Pool) -> dict[str, Window]:
    """A window of each kind, by feature."""

    def window(
        feature: str, ends_at: datetime, after: AccessMode, quota: int | None = None, starts_at: datetime = START
    ) -> Window:
        return Window(
            window_id=f"win_{feature}",
            agency_id=pool.agency_id,
            enrollment_id=pool.enrollment_id,
            feature=feature,
            trial=ends_at != END,
            mode=AccessMode.UNLIMITED,
            starts_at=starts_at,
            ends_at=ends_at,
            mode_after=after,
            monthly_quota_after=quota,
            catalog_number=1,
        )

    windows = [
        window("advanced-voice-mode", TRIAL_END, AccessMode.NONE),
        window("deep-research", TRIAL_END, AccessMode.QUOTA, 25),
        window("frontier-models", END, AccessMode.NONE),
        window("later", END, AccessMode.NONE, starts_at=TRIAL_END),
        window("used-up", START, AccessMode.QUOTA, 0),
        replace(window("with-grace", TRIAL_END, AccessMode.NONE), grace_days=10),
        replace(window("by-seat", END, AccessMode.QUOTA, 3), anchor=Anchor.SEAT, seat_days=45, grace_days=5),
        replace(window("by-seat-later", END, AccessMode.NONE, starts_at=TRIAL_END), anchor=Anchor.SEAT, seat_days=10),
        replace(window("by-seat-long", LATER, AccessMode.NONE), trial=False, anchor=Anchor.SEAT, seat_days=3660),
    ]
    return {window.feature: window for window in windows}


@dataclass(frozen=True)
class Case:
    """A check: of whom, and the facts that the service has of them."""

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
        grants = tuple(
            grant
            for grant in self.grants
            if grant.feature == self.feature and grant.subject_ref in (None, self.subject_ref)
        )
        began_at = BEGUN.get(self.seat) if self.seat else None
        question = Question(self.pool, self.seat, self.feature, window, grants=grants, began_at=began_at)
        answer = CheckReply.of(check(question, self.now)).model_dump(mode="json", include=DECIDED)
        return {
            "agency_id": self.agency_id,
            "subject_ref": self.subject_ref,
            "feature": self.feature,
            "now": text(self.now),
            "answer": answer | self.use(answer["reason"]),
        }

    def use(self, reason: str) -> dict[str, Any]:
        """What is known of the use of a quota: as of its last threshold, in its period."""
        if reason == "quota" and self.pool:
            for use in uses_of(self.pool):
                if use.subject_ref in ("", self.subject_ref) and use.feature == self.feature and self.now < use.ends_at:
                    return {"limit": use.quota, "used": use.used, "resets_at": text(use.ends_at)}
        return {"limit": None, "used": None, "resets_at": None}


def text(instant: datetime) -> str:
    """An instant as a record has it."""
    return instant.isoformat().replace("+00:00", "Z")


def subject(number: int) -> str:
    """A reference."""
    return f"sub_01987b3e00007000800000000000{number:04x}"


def records() -> tuple[list[str], list[str]]:
    """The data of the records of agencies and of people, as the service publishes them."""
    agencies, people = [], []
    for place, pool in enumerate(POOLS):
        shared = [grant for grant in grants_of(pool) if grant.subject_ref is None]
        together = [use for use in uses_of(pool) if not use.subject_ref]
        agencies.append((encode(agency_access(pool, windows_of(pool), shared, together)) or b"").decode())
        seats = {subject(place * 16 + number): state for number, state in enumerate(HELD)}
        earlier = {subject(place * 16 + len(HELD)): SeatState.ACTIVE}
        person = subject(place * 16 + HELD.index(GRANTED))
        own = {
            person: Own(
                tuple(grant for grant in grants_of(pool) if grant.subject_ref == person),
                tuple(use for use in uses_of(pool) if use.subject_ref == person),
            )
        }
        for generation, states in ((pool.generation, seats), (pool.generation - 1, earlier)):
            held = {subject_ref: HeldSeat(state, BEGUN.get(state)) for subject_ref, state in states.items()}
            published = subjects_access(replace(pool, generation=generation), pool.revision, held, own)
            people += [(value or b"").decode() for value in published.values()]
    return agencies, people


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
    for now in (TRIAL_END + timedelta(days=10) - INSTANT, TRIAL_END + timedelta(days=10)):
        yield case(OPEN, SeatState.ACTIVE, "with-grace", now)
    for state in HELD:
        for feature in (None, "frontier-models", "advanced-voice-mode", "by-seat"):
            yield case(OPEN, state, feature, TRIAL_END)
    nobody = replace(case(OPEN, GRANTED, "frontier-models", TRIAL_END), seat=None)
    yield replace(nobody, subject_ref=subject(len(HELD)))  # of an earlier generation
    yield replace(nobody, subject_ref=subject(16 + HELD.index(GRANTED)))  # another agency's
    yield replace(nobody, subject_ref="no-reference")
    yield replace(nobody, pool=None, agency_id="FTC", grants=())


def case(pool: Pool, state: SeatState, feature: str | None, now: datetime) -> Case:
    """A check of the person of an agency whose seat has this state."""
    person = subject(POOLS.index(pool) * 16 + HELD.index(state))
    return Case(pool, pool.agency_id, person, state, feature, now, grants_of(pool))


def golden() -> str:
    """The file: one record or case a line."""
    agencies, people = records()
    checks = [json.dumps(case.to_json()) for case in cases()]
    parts = {"agencies": agencies, "subjects": people, "checks": checks}
    body = ",\n".join(f'"{name}": [\n' + ",\n".join(lines) + "\n]" for name, lines in parts.items())
    return f"{{\n{body}\n}}\n"


if __name__ == "__main__":
    FILE.write_text(golden(), "utf-8")
