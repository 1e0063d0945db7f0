"""The SQL of the register of agencies."""

from collections.abc import Iterable, Sequence

from muster_enrollment.domain.facts import Agency
from muster_enrollment.repository import rows
from muster_runtime.database.transactions import Connection


async def list_agencies(connection: Connection) -> dict[str, Agency]:
    """All agencies in the register by ID."""
    found = await connection.fetch(f"select {rows.AGENCY} from agency as a")  # noqa: S608
    return {row["id"]: rows.agency(row) for row in found}


async def sum_headcount(connection: Connection, agency_id: str) -> int | None:
    """The sum of the known headcounts of an agency and all its sub-agencies; None if its own is unknown."""
    heads: int | None = await connection.fetchval(
        """
        with recursive part as (
            select id, headcount from agency where id = $1
            union all
            select a.id, a.headcount from agency as a inner join part on a.parent = part.id
        )
        select sum(headcount)::bigint
        from part
        where (select headcount from agency where id = $1) is not null
        """,
        agency_id,
    )
    return heads


async def lock_agency(connection: Connection, agency_id: str) -> None:
    """Lock an agency's entry in the register against changes until the transaction ends."""
    await connection.execute("select from agency where id = $1 for share", agency_id)


async def list_known(connection: Connection, agencies: Iterable[str]) -> set[str]:
    """The IDs of those agencies that are in the register."""
    found = await connection.fetch("select id from agency where id = any($1::text[])", list(agencies))
    return {row["id"] for row in found}


async def save_agencies(connection: Connection, agencies: Sequence[Agency]) -> None:
    """Add or update agencies in one statement, because a parent may come after its child."""
    await connection.execute(
        """
        insert into agency (id, name, parent, treasury_code, headcount, branch)
        select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[])
        on conflict (id) do update set
            name = excluded.name,
            parent = excluded.parent,
            treasury_code = excluded.treasury_code,
            headcount = excluded.headcount,
            branch = excluded.branch
        """,
        [agency.id for agency in agencies],
        [agency.name for agency in agencies],
        [agency.parent for agency in agencies],
        [agency.treasury_code for agency in agencies],
        [agency.headcount for agency in agencies],
        [agency.branch for agency in agencies],
    )
    await connection.execute(
        "delete from agency_domain where holder = any($1::text[])", [agency.id for agency in agencies]
    )
    domains = [(domain, agency.id) for agency in agencies for domain in agency.domains]
    await connection.execute(
        "insert into agency_domain (domain, holder) select * from unnest($1::text[], $2::text[])",
        [domain for domain, _ in domains],
        [holder for _, holder in domains],
    )


async def list_enrolled(connection: Connection, agencies: Iterable[str]) -> list[str]:
    """The IDs of those agencies that have a live enrollment."""
    found = await connection.fetch(
        """
        select agency_id
        from enrollment
        where closed_at is null and agency_id = any($1::text[])
        order by agency_id
        """,
        list(agencies),
    )
    return [row["agency_id"] for row in found]
