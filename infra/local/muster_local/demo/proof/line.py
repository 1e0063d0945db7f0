"""A line of the proof, and helpers that compare a claim with the evidence."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from muster_contracts import Position
from muster_local.demo.evidence import Evidence
from muster_local.demo.log import Fact, Stream


@dataclass(frozen=True)
class Line:
    """A claim, whether it holds, and the figures or the first faults."""

    claim: str
    ok: bool
    detail: str


def conclude(claim: str, faults: Sequence[str], detail: str, found: Iterable[object]) -> Line:
    """A claim holds if there are no faults and `found` is not empty."""
    if not any(True for _ in found):
        return Line(claim, False, "nothing was found")
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    return Line(claim, not faults, "; ".join(faults[:3]) + more if faults else detail)


def first_occurrences(facts: Iterable[Fact]) -> Iterator[Fact]:
    seen: set[str] = set()
    for fact in facts:
        if fact.envelope.id not in seen:
            seen.add(fact.envelope.id)
            yield fact


def named(evidence: Evidence, name: str) -> Iterator[tuple[Fact, dict[str, Any]]]:
    """The events of one type, without duplicates and erasures, with their data."""
    for fact in first_occurrences(evidence.facts):
        if fact.name == name and fact.data is not None:
            yield fact, fact.data


def enrolled_at(evidence: Evidence, at: datetime) -> set[str]:
    """The agencies that were in the program at an instant."""
    enrolled = {fact.envelope.agency_id for fact, _ in named(evidence, "AgencyEnrolled") if fact.envelope.time < at}
    return enrolled - {
        fact.envelope.agency_id for fact, _ in named(evidence, "AgencyWithdrawn") if fact.envelope.time < at
    }


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def differences(what: str, due: Counter[Any], found: Counter[Any]) -> list[str]:
    return [
        f"{found[key]} × {what} {key}, not {due[key]}"
        for key in sorted(due.keys() | found.keys(), key=str)
        if due[key] != found[key]
    ]


def unequal(where: str, due: Mapping[Stream, Position], found: Mapping[Stream, Position]) -> list[str]:
    return [
        f"{where}: {stream} is at {found.get(stream)}, not {due.get(stream)}"
        for stream in sorted(due.keys() | found.keys())
        if due.get(stream) != found.get(stream)
    ]
