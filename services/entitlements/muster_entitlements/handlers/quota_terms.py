"""Publishes the use of quotas to snapshot copies again when the terms by which it counts change.

Copies know the use as of its last threshold. A new limit, another period, or a granted quota can make them wrong. A
change for a whole agency is published step by step: a step is one transaction that examines STEP_PEOPLE people. The
tables show what is still to be published, and the deadline where the next step begins, so a killed step loses nothing.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from muster_entitlements.domain.meters import Limits
from muster_entitlements.domain.people import is_reference
from muster_entitlements.domain.quotas import WHOLE_AGENCY, PublishedUse
from muster_entitlements.handlers.snapshots import publish_uses
from muster_entitlements.repository import catalogs, grants, quota_uses
from muster_entitlements.repository.meters import find_last, find_meters
from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.scheduling import deadlines
from muster_runtime.scheduling.deadlines import Deadline

QUOTA_USES_TOLD = "quota-uses-told"

# The subject of the deadline for when a grant of a quota next begins or ends. It is no feature, agency, or enrollment.
NEXT_TURN = "next_turn"

# The most people in a step.
STEP_PEOPLE = 1_000


class Place(NamedTuple):
    """Where a step begins: with a feature, and with one of its people. Both are in alphabetical order."""

    feature: str
    subject_ref: str

    @classmethod
    def read(cls, subject: str) -> "Place":
        """The place that the subject of a deadline names; the beginning if it names none."""
        feature, named, subject_ref = subject.partition("/")
        return cls(feature, subject_ref) if named else BEGINNING

    def __str__(self) -> str:
        return f"{self.feature}/{self.subject_ref}"


BEGINNING = Place("", WHOLE_AGENCY)


async def tell_uses(uow: UnitOfWork, agency_id: str, cause: str | None = None, *, since: Place = BEGINNING) -> None:
    """Publish the current use of quotas for which copies are wrong, because an agency's terms may have changed.

    Call it after windows, or grants of quotas to the whole agency, are stored. Without a pool, it does nothing. It
    takes one step from `since`, and schedules the next step if any people are left.
    """
    uses: list[PublishedUse] = []
    left = STEP_PEOPLE
    for feature, limits in await _find_limits(uow, agency_id):
        if feature < since.feature:
            continue
        first = since.subject_ref if feature == since.feature else WHOLE_AGENCY
        people = await quota_uses.list_next(uow.connection, agency_id, feature, limits.period, first, left + 1)
        uses += await quota_uses.list_untold(uow.connection, agency_id, feature, limits, people[:left], uow.now)
        if len(people) > left:
            following = Place(feature, people[left])
            deadlines.schedule(uow, [Deadline(QUOTA_USES_TOLD, agency_id, str(following), uow.now)])
            break
        left -= len(people)
    await publish_uses(uow, uses, [], cause)


async def tell_uses_of(uow: UnitOfWork, agency_id: str, subject_refs: Collection[str]) -> None:
    """Like tell_uses, for people whose own terms may have changed. Call it after their grants are stored."""
    uses: list[PublishedUse] = []
    for feature, limits in await _find_limits(uow, agency_id):
        uses += await quota_uses.list_untold(uow.connection, agency_id, feature, limits, subject_refs, uow.now)
    await publish_uses(uow, uses, [])


def tell_uses_next(uow: UnitOfWork, people: Iterable[tuple[str, str]]) -> None:
    """Schedule tell_uses_of for people, each with their agency, right after this transaction."""
    deadlines.schedule(
        uow, [Deadline(QUOTA_USES_TOLD, agency_id, subject_ref, uow.now) for agency_id, subject_ref in sorted(people)]
    )


async def on_quota_uses_told_due(uow: UnitOfWork, due: Sequence[Deadline]) -> None:
    """Publish the use of the next people, or of people to whom another quota applies from now on.

    A deadline's subject is a person, NEXT_TURN, or the place where a step begins. Any other means the beginning.
    """
    agency_id = due[0].agency_id
    subject_refs: list[str] = []
    places: list[Place] = []
    for deadline in due:
        if deadline.subject == NEXT_TURN:
            turned = await grants.list_turned(uow.connection, agency_id, deadline.due_at, uow.now, STEP_PEOPLE + 1)
            if WHOLE_AGENCY in turned or len(turned) > STEP_PEOPLE:
                places.append(BEGINNING)
            else:
                subject_refs += turned
        elif is_reference(deadline.subject):
            subject_refs.append(deadline.subject)
        else:
            places.append(Place.read(deadline.subject))
    if places:
        await tell_uses(uow, agency_id, since=min(places))
    if subject_refs or not places:
        await tell_uses_of(uow, agency_id, subject_refs)


async def _find_limits(uow: UnitOfWork, agency_id: str) -> list[tuple[str, Limits]]:
    """The limits of each feature that a quota may limit, in order; none without a pool.

    Schedules the deadline for when a grant of a quota next begins or ends.
    """
    catalog = await catalogs.find_catalog(uow.connection, uow.now)
    meter = (await find_meters(uow.connection, {agency_id: ()}, uow.now, catalog)).get(agency_id)
    if meter is None:
        return []
    turns = await grants.find_turns_of_quotas(uow.connection, agency_id, uow.now)
    if next_turns := [at for at in turns.values() if at is not None]:
        deadlines.schedule_earlier(uow, Deadline(QUOTA_USES_TOLD, agency_id, NEXT_TURN, min(next_turns)))
    outlived = await find_last(uow.connection, turns.keys() - meter.features.keys(), catalog)
    of_all = await grants.list_standing(uow.connection, agency_id, (), uow.now)
    limits = [
        (key, meter.limits(feature, uow.now, [grant for grant in of_all if grant.feature == key]))
        for key, feature in {**outlived, **meter.features}.items()
        if key in turns or feature.stated_quota
    ]
    return sorted(limits, key=lambda limited: limited[0])
