"""Whether the disk of Postgres has room: noticed by the writes that find none, then asked until there is some."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from muster_runtime.database.connections import Connection


class Disk:
    """The disk as one pool's writes find it. `is_full`: the last write found no room."""

    def __init__(self) -> None:
        self.is_full = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note whether a write finds room."""
        try:
            yield
        except asyncpg.DiskFullError:
            self.is_full = True
            raise
        self.is_full = False

    async def look(self, connection: Connection) -> None:
        """Where the last write found no room: whether a few pages more than there are can be had now."""
        if not self.is_full:
            return
        room = connection.transaction()
        await room.start()
        try:
            # One row would fit into a page that is there already, and show nothing.
            await connection.execute(
                "insert into disk_probe (filling) select repeat('x', 1000) from generate_series(1, 200)"
            )
        except asyncpg.DiskFullError:
            return
        finally:
            await room.rollback()
        self.is_full = False
