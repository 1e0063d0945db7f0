"""Finds the changes of seats that are on the topic but not in entitlements' database, because a restore lost them."""

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from muster_contracts.entitlements import SeatReinstated, SeatRevoked, SeatSuspended, SeatTransferred

SeatKey = tuple[str, str]  # agency, seat
SeatChange = SeatRevoked | SeatSuspended | SeatReinstated | SeatTransferred

# The events whose effect on a seat lasts until the next event of that kind; a revocation is permanent.
CHANGES: Mapping[str, type[SeatChange]] = {
    each.event_type: each for each in (SeatRevoked, SeatSuspended, SeatReinstated, SeatTransferred)
}
_NAMES: Mapping[type[SeatChange], str] = {
    SeatRevoked: "revocation",
    SeatSuspended: "suspension",
    SeatReinstated: "reinstatement",
    SeatTransferred: "transfer",
}


class LostChanges(dict[tuple[SeatKey, str], str]):
    """The last change of a kind of each seat that differs from the database, by seat and kind.

    An event is published after its commit, so unless commits were lost, the database has all that the topic has. Each
    batch of events is compared, and only differences are kept, because a topic has millions of revocations.
    """

    async def note(self, connection: "asyncpg.Connection[Any]", events: Sequence[SeatChange]) -> None:
        """Compare the topic's next events, in order, with entitlements' seats."""
        seats = [(event.agency_id, event.seat_id) for event in events]
        held = await _held(connection, seats)
        for seat, event in zip(seats, events, strict=True):
            kind = _NAMES[SeatSuspended if isinstance(event, SeatReinstated) else type(event)]
            if isinstance(event, SeatTransferred):  # which a suspended seat cannot be
                self.pop((seat, _NAMES[SeatSuspended]), None)
            if seat not in held:
                for name in _NAMES.values():
                    self.pop((seat, name), None)
            elif _agree(event, *held[seat]):
                self.pop((seat, kind), None)
            else:
                self[seat, kind] = _NAMES[type(event)]

    def named(self) -> frozenset[tuple[SeatKey, str]]:
        """The seats, and what was changed."""
        return frozenset((seat, change) for (seat, _), change in self.items())


async def _held(connection: "asyncpg.Connection[Any]", seats: Sequence[SeatKey]) -> dict[SeatKey, tuple[str, str]]:
    """The states and holders of those of the seats that are not revoked."""
    rows = await connection.fetch(
        """
        select agency_id, seat_id, state, subject_ref
        from unnest($1::text[], $2::text[]) as changed (agency_id, seat_id)
        join seat using (agency_id, seat_id)
        where state <> 'revoked'
        """,
        [agency_id for agency_id, _ in seats],
        [seat_id for _, seat_id in seats],
    )
    return {(row["agency_id"], row["seat_id"]): (row["state"], row["subject_ref"]) for row in rows}


def _agree(event: SeatChange, state: str, holder: str) -> bool:
    """Whether a seat that is not revoked is still as this event, the last of its kind, left it."""
    if isinstance(event, SeatTransferred):
        return holder == event.subject_ref
    return not isinstance(event, SeatRevoked) and (state == "suspended") == isinstance(event, SeatSuspended)
