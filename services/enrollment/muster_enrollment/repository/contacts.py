"""The SQL of contacts: the people who represent agencies or sign for them."""

from collections.abc import Sequence
from datetime import datetime

from muster_enrollment.domain.facts import ContactRole, Person
from muster_runtime.database.transactions import Connection


async def add_contact(
    connection: Connection, agency_id: str, contact_ref: str, role: ContactRole, person: Person, now: datetime
) -> None:
    await connection.execute(
        """
        insert into contact (contact_ref, agency_id, role, name, email, recorded_at)
        values ($1, $2, $3, $4, $5, $6)
        """,
        contact_ref,
        agency_id,
        role,
        person.name,
        person.email,
        now,
    )


async def list_contacts(
    connection: Connection, agency_id: str, roles: Sequence[ContactRole] = tuple(ContactRole)
) -> list[str]:
    """The references of an agency's contacts in these roles, without the erased ones."""
    rows = await connection.fetch(
        "select contact_ref from contact where agency_id = $1 and role = any($2::text[]) and erased_at is null",
        agency_id,
        list(roles),
    )
    return [row["contact_ref"] for row in rows]


async def has_contact(connection: Connection, agency_id: str, contact_ref: str) -> bool:
    """Whether an agency has a contact, erased or not."""
    query = "select exists (select from contact where agency_id = $1 and contact_ref = $2)"
    return bool(await connection.fetchval(query, agency_id, contact_ref))


async def delete_contact_details(connection: Connection, contact_refs: Sequence[str], now: datetime) -> list[str]:
    """Erase contacts' names and addresses. Returns the references of those that were not erased yet."""
    rows = await connection.fetch(
        """
        update contact
        set name = null, email = null, erased_at = $2
        where contact_ref = any($1::text[]) and erased_at is null
        returning contact_ref
        """,
        contact_refs,
        now,
    )
    return [row["contact_ref"] for row in rows]
