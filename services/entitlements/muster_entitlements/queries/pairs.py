"""Pairs of people and features to check: their answers from what an agency's checks depend on."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from muster_entitlements.domain.checks import Answer, Question, Register, check_all
from muster_entitlements.repository import catalogs
from muster_runtime.database.transactions import Connection
from muster_runtime.errors import InvalidInput, rfc3339
from muster_runtime.pacing import Pace
from muster_runtime.text import did_you_mean


@dataclass(frozen=True, slots=True)
class Pair:
    """A person of an agency, and the feature to check; None checks only the seat."""

    agency_id: str
    subject_ref: str
    feature: str | None


def people_of(pairs: Iterable[Pair]) -> dict[str, set[str]]:
    """The people of pairs, by agency."""
    people: defaultdict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        people[pair.agency_id].add(pair.subject_ref)
    return people


async def check_pairs(
    registers: Mapping[str, Register], pairs: Sequence[Pair], now: datetime
) -> list[tuple[Question, Answer]]:
    """Answer the check of each pair from its agency's register, in order."""
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        places[pair.agency_id].append(place)
    checked: dict[int, tuple[Question, Answer]] = {}
    pace = Pace()
    for agency_id, own in places.items():
        asked = ((pairs[place].subject_ref, pairs[place].feature) for place in own)
        for place, case in zip(own, check_all(registers[agency_id], asked, now), strict=True):
            checked[place] = case
            await pace.keep()
    return [checked[place] for place in range(len(pairs))]


async def require_known(
    connection: Connection, registers: Mapping[str, Register], pairs: Iterable[Pair], at: datetime, past: bool = False
) -> None:
    """Raise InvalidInput for a feature that has no window, is not granted to the pair, and is not in the catalog."""
    known = {agency_id: {*register.windows, None} for agency_id, register in registers.items()}
    granted: set[tuple[str, str | None, str | None]] = set()
    strange: dict[int, str | None] = {}
    pace = Pace()
    for register in registers.values():
        for grant in register.grants:
            granted.add((grant.agency_id, grant.subject_ref, grant.feature))
            await pace.keep()
    for place, pair in enumerate(pairs):
        await pace.keep()
        if pair.feature in known[pair.agency_id]:
            continue
        if not any((pair.agency_id, owner, pair.feature) in granted for owner in (None, pair.subject_ref)):
            strange[place] = pair.feature
    if not strange:
        return
    catalog = await catalogs.find_catalog(connection, at)
    rule = f"must be a feature that the catalog had at {rfc3339(at)}" if past else "must be a feature of the catalog"
    for place, feature in strange.items():
        if feature is None or feature in catalog.features:
            continue
        raise InvalidInput(f"pairs.{place}.feature", feature, f"{rule}{did_you_mean(catalog.nearest(feature))}")
