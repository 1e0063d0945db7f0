"""Detects whether Postgres's disk is full: failing writes report it, then a probe runs until there is space."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from muster_runtime.database.connections import Connection


class Disk:
    """The disk, as one pool's writes find it. `is_full`: a write found no space, and `look` has found none since."""

    def __init__(self) -> None:
        self.is_full = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note a write that finds no space. One that succeeds may have needed none, so only `look` clears the note."""
        try:
            yield
        except asyncpg.DiskFullError:
            self.is_full = True
            raise

    async def look(self, connection: Connection) -> None:
        """If a write found no space, check whether a few more pages can be allocated now."""
        if not self.is_full:
            return
        room = connection.transaction()
        await room.start()
        try:
            # One row could fit into an existing page and prove nothing.
            await connection.execute(
                "insert into disk_probe (filling) select repeat('x', 1000) from generate_series(1, 200)"
            )
        except asyncpg.DiskFullError:
            return
        finally:
            await room.rollback()
        self.is_full = False
