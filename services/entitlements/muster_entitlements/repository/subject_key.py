"""The fingerprint of the key that makes the subject references, stored at the service's first start."""

from muster_runtime.database.transactions import Connection


async def save_first_fingerprint(connection: Connection, fingerprint: str) -> str:
    """Store the fingerprint if there is none, and return the one that is stored."""
    await connection.execute(
        "insert into subject_key (fingerprint) values ($1) on conflict do nothing",
        fingerprint,
    )
    stored: str = await connection.fetchval("select fingerprint from subject_key")
    return stored
