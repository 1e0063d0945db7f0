"""The people of each agency, by role."""

from collections.abc import Sequence

from muster_contracts.enrollment import ContactRecorded
from muster_contracts.entitlements import PersonRecorded
from muster_notify.domain.contacts import PERSON, Contact, Person
from muster_runtime.database.transactions import Connection


async def save_people(
    connection: Connection, people: Sequence[ContactRecorded | PersonRecorded], roles: Sequence[str]
) -> None:
    """Add or replace entries in the directory. Of several for one person, the last one counts."""
    latest = {(p.agency_id, p.subject_ref): (p, role) for p, role in zip(people, roles, strict=True)}
    await connection.execute(
        """
        insert into directory (agency_id, subject_ref, role, name, email)
        select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
        on conflict (agency_id, subject_ref) do update
        set role = excluded.role, name = excluded.name, email = excluded.email
        """,
        [agency_id for agency_id, _ in latest],
        [subject_ref for _, subject_ref in latest],
        [role for _, role in latest.values()],
        [person.name for person, _ in latest.values()],
        [person.email for person, _ in latest.values()],
    )


async def delete_people(connection: Connection, keys: Sequence[tuple[str, str]]) -> None:
    """Delete entries of the directory by (agency, subject reference)."""
    await connection.execute(
        """
        delete from directory
        where (agency_id, subject_ref) in (select * from unnest($1::text[], $2::text[]))
        """,
        [agency_id for agency_id, _ in keys],
        [subject_ref for _, subject_ref in keys],
    )


async def find_people(connection: Connection, people: Sequence[Person]) -> dict[Person, Contact]:
    """Those of these people who hold a seat and can be reached."""
    rows = await connection.fetch(
        """
        select agency_id, subject_ref, name, email
        from directory
        where (agency_id, subject_ref) in (select * from unnest($1::text[], $2::text[])) and role = $3
        """,
        [agency_id for agency_id, _ in people],
        [subject_ref for _, subject_ref in people],
        PERSON,
    )
    return {(row["agency_id"], row["subject_ref"]): Contact(row["name"], row["email"]) for row in rows}


async def list_contacts(connection: Connection, agency_id: str, role: str) -> list[Contact]:
    """The contacts that have a role in an agency."""
    rows = await connection.fetch(
        "select name, email from directory where agency_id = $1 and role = $2 order by subject_ref",
        agency_id,
        role,
    )
    return [Contact(row["name"], row["email"]) for row in rows]
