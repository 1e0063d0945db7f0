"""Postgres's array types, which the driver asks each new connection for: six round trips before its first statement.

They are the same on every server, so a pool asks once.
"""

from typing import Any

import asyncpg

# bool[], bytea[], integer[], bigint[], date[], timestamptz[] and jsonb[], as pg_type.dat numbers them. The driver knows
# text[] by itself.
_OIDS = (1000, 1001, 1007, 1016, 1182, 1185, 3807)


class ArrayTypes:
    """What a pool's first connection has been told of the array types."""

    def __init__(self) -> None:
        self._types: list[asyncpg.Record] = []

    async def teach(self, connection: "asyncpg.Connection[Any]") -> None:
        """Let a new connection know them."""
        if not self._types:
            self._types, _ = await connection._introspect_types(_OIDS, None)  # type: ignore[attr-defined]
        connection._protocol.get_settings().register_data_types(self._types)  # type: ignore[attr-defined]
