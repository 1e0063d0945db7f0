"""Caches Postgres's array types. The driver looks them up for each new connection, in six round trips.

They are the same on every server, so a pool looks them up once.
"""

from typing import Any

import asyncpg

# bool[], bytea[], integer[], bigint[], date[], timestamptz[], and jsonb[], by their OIDs in pg_type.dat. The driver
# knows text[] already.
_OIDS = (1000, 1001, 1007, 1016, 1182, 1185, 3807)


class ArrayTypes:
    """The array types that a pool's first connection looked up."""

    def __init__(self) -> None:
        self._types: list[asyncpg.Record] = []

    async def teach(self, connection: "asyncpg.Connection[Any]") -> None:
        """Register the types with a new connection."""
        if not self._types:
            self._types, _ = await connection._introspect_types(_OIDS, None)  # type: ignore[attr-defined]
        connection._protocol.get_settings().register_data_types(self._types)  # type: ignore[attr-defined]
