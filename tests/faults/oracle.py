"""The oracle: each committed command took effect exactly once, in its agency's order, and nothing was left behind.

It compares, for every agency, what the recorder wrote, the producer's tables, the topic as it lies in Kafka, the
consumer's effects, and the last sequences; and it names the first difference of each kind.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import asyncpg

from tests.faults.probe.service import ANSWERS, TOPIC
from tests.faults.recorder import Command

Position = tuple[int, int]  # epoch, sequence


@dataclass(frozen=True)
class Occurrence:
    """An event on a topic; an answer has no number."""

    topic: str
    agency_id: str
    position: Position
    seat_id: str
    number: int | None = None


@dataclass(frozen=True)
class Effect:
    """A row that the consumer's handler wrote."""

    position: Position
    seat_id: str


@dataclass(frozen=True)
class Evidence:
    """All that can be known when everything has come to rest.

    By agency, or by topic and agency; sequences are in the order in which things happened.
    """

    commands: Sequence[Command]
    facts: Mapping[str, Sequence[str]]
    numbers: Mapping[str, Sequence[int]]
    tallies: Mapping[str, int]
    log: Sequence[Occurrence]
    effects: Mapping[str, Sequence[Effect]]
    produced: Mapping[tuple[str, str], Position]
    applied: Mapping[str, Position]
    outbox: int = 0
    parked: Mapping[str, str] = field(default_factory=dict)

    @property
    def agencies(self) -> list[str]:
        """Every agency that the evidence mentions."""
        named = {command.agency_id for command in self.commands} | {event.agency_id for event in self.log}
        return sorted(named | self.facts.keys() | self.effects.keys() | self.applied.keys())


def differences(evidence: Evidence) -> list[str]:
    """What is wrong; empty if nothing was lost, duplicated, out of order or left behind."""
    found = [f"{evidence.outbox} rows are left in the outbox"] if evidence.outbox else []
    found += [f"{agency}: is parked: {reason}" for agency, reason in sorted(evidence.parked.items())]
    for agency in evidence.agencies:
        found += [f"{agency}: {difference}" for difference in _of_agency(evidence, agency)]
    return found


def _of_agency(evidence: Evidence, agency: str) -> Iterator[str]:
    facts = evidence.facts.get(agency, [])
    yield from _commands(evidence.commands, agency, facts)
    numbers = evidence.numbers.get(agency, [])
    yield from _first("the facts' numbers", list(range(1, len(facts) + 1)), numbers)
    yield from _first("the tally", [len(facts)] if facts else [], _one(evidence.tallies.get(agency)))

    assigned, answers = [list(_first_occurrences(_stream(evidence, topic, agency))) for topic in (TOPIC, ANSWERS)]
    yield from _log(evidence, TOPIC, agency)
    yield from _log(evidence, ANSWERS, agency)
    wanted = list(zip(facts, numbers, strict=False))
    yield from _first("the topic beside the facts", wanted, [(event.seat_id, event.number) for event in assigned])
    effects = [(effect.position, effect.seat_id) for effect in evidence.effects.get(agency, [])]
    yield from _first("the effects beside the topic", [(e.position, e.seat_id) for e in assigned], effects)
    yield from _first("the answers beside the effects", [s for _, s in effects], [e.seat_id for e in answers])
    last = _one(assigned[-1].position if assigned else None)
    yield from _first("the last sequence applied", last, _one(evidence.applied.get(agency)))


def _stream(evidence: Evidence, topic: str, agency: str) -> list[Occurrence]:
    return [event for event in evidence.log if (event.topic, event.agency_id) == (topic, agency)]


def _log(evidence: Evidence, topic: str, agency: str) -> Iterator[str]:
    """A stream is gapless up to the last sequence assigned, and what is sent again is the same event."""
    seen: dict[Position, Occurrence] = {}
    last: Position = (1, 0)
    for event in _stream(evidence, topic, agency):
        if seen.setdefault(event.position, event) != event:
            yield f"{event.position} is two events on {topic}: {seen[event.position].seat_id} and {event.seat_id}"
            return
        if event.position > last:
            if event.position[0] == last[0] and event.position[1] != last[1] + 1:
                yield f"on {topic}, {event.position} follows {last}"
                return
            last = event.position
    produced = evidence.produced.get((topic, agency))
    yield from _first(f"the last sequence assigned on {topic}", _one(last if seen else None), _one(produced))


def _commands(commands: Sequence[Command], agency: str, facts: Sequence[str]) -> Iterator[str]:
    """An answered command is in the facts, a refused one is not, a lost one is in full or not at all; no other is."""
    known = set(facts)
    asked: set[str] = set()
    for command in (command for command in commands if command.agency_id == agency):
        done = [seat_id for seat_id in command.seat_ids if seat_id in known]
        asked |= set(command.seat_ids)
        if command.ending == "answered" and len(done) < len(command.seat_ids):
            missing = len(command.seat_ids) - len(done)
            yield f"command {command.key} was answered, and {missing} of its facts are missing"
        if command.ending == "refused" and done:
            yield f"command {command.key} was refused, and {done[0]} is a fact"
        if command.ending == "lost" and 0 < len(done) < len(command.seat_ids):
            yield f"command {command.key} was lost, and half done: {done[0]} is a fact"
    yield from (f"{seat_id} is a fact that nobody asked for" for seat_id in facts if seat_id not in asked)
    if len(known) < len(facts):
        yield f"{len(facts) - len(known)} facts are there twice"


def _first_occurrences(occurrences: Sequence[Occurrence]) -> Iterator[Occurrence]:
    last: Position = (0, 0)
    for event in occurrences:
        if event.position > last:
            last = event.position
            yield event


def _first(what: str, expected: Sequence[Any], found: Sequence[Any]) -> Iterator[str]:
    """The first place where two sequences differ."""
    for place, (wanted, got) in enumerate(zip_longest(expected, found), 1):
        if wanted != got:
            yield f"{what}, place {place}: {wanted} of {len(expected)} was expected, {got} of {len(found)} found"
            return


def _one(value: Any) -> list[Any]:
    return [] if value is None else [value]


async def gather(admin: "asyncpg.Connection[Any]", log: Sequence[Occurrence], commands: Sequence[Command]) -> Evidence:
    """Read the probe's tables."""
    seats = await admin.fetch("select agency_id, seat_id, number from seat order by number")
    effects = await admin.fetch("select agency_id, epoch, sequence, seat_id from effect order by id")
    by_agency: dict[str, list[Effect]] = {}
    for row in effects:
        by_agency.setdefault(row["agency_id"], []).append(Effect((row["epoch"], row["sequence"]), row["seat_id"]))
    return Evidence(
        commands=commands,
        facts=_grouped(seats, "seat_id"),
        numbers=_grouped(seats, "number"),
        tallies=dict(await admin.fetch("select agency_id, seats from tally")),
        log=log,
        effects=by_agency,
        produced={
            (row["topic"], row["agency_id"]): (row["epoch"], row["last_sequence"])
            for row in await admin.fetch("select topic, agency_id, epoch, last_sequence from stream")
        },
        applied={
            row["agency_id"]: (row["epoch"], row["last_sequence"])
            for row in await admin.fetch("select agency_id, epoch, last_sequence from applied")
        },
        outbox=await admin.fetchval("select count(*) from outbox"),
        parked=dict(await admin.fetch("select agency_id, reason from parked_stream")),
    )


def _grouped(rows: Sequence[Any], column: str) -> dict[str, list[Any]]:
    grouped: dict[str, list[Any]] = {}
    for row in rows:
        grouped.setdefault(row["agency_id"], []).append(row[column])
    return grouped
