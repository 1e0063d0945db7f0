"""Publishes the whole access of an agency or a person whenever it changes, for systems that keep a copy.

Code that increases an agency's revision then calls one of these functions: `publish_agency` for changes of the pool,
its windows, or anything else that applies to all its seats; `publish_subjects` for changes of people's seats; and
`publish_holders` for changes of what they have besides their seats.
"""

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from muster_contracts import encode
from muster_contracts.entitlements import AgencyAccess, SubjectAccess, SubjectAccessErased
from muster_entitlements.domain.catalog import packaged_catalog
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.quotas import WHOLE_AGENCY, PublishedUse, QuotaGrant
from muster_entitlements.domain.seats import HeldSeat, SeatState
from muster_entitlements.errors import GrantsFull
from muster_entitlements.handlers.lookups import known_pool
from muster_entitlements.publishing.snapshots import agency_access, subjects_access
from muster_entitlements.repository import grants, pools, quota_uses, snapshots, usage, windows
from muster_runtime.context import Context
from muster_runtime.database import outbox, writes
from muster_runtime.database.transactions import Connection, UnitOfWork

# How full a record may be after a grant, in percent. The rest is for what other commands add: the windows of as many
# features as a catalog may have, and the use of their quotas.
GRANTED_PERCENT = 70


async def publish_agency(uow: UnitOfWork, agency_id: str, cause: str | None = None) -> None:
    """Publish an agency's current access according to the tables; nothing if it has no pool."""
    pool = await pools.find_pool(uow.connection, agency_id)
    if pool is not None:
        uow.publish_state(await find_access(uow.connection, pool, uow.now), causation_id=cause)


async def find_access(connection: Connection, pool: Pool, now: datetime) -> AgencyAccess:
    """An agency's access at an instant, according to the tables."""
    opened = await windows.list_windows(connection, pool.agency_id, pool.enrollment_id)
    numbers = {window.catalog_number for window in opened.values()}
    versions = await usage.find_versions(connection, numbers, packaged_catalog())
    features = {key: versions[window.catalog_number].features.get(key) for key, window in opened.items()}
    quotas = {key: feature.stated_quota for key, feature in features.items() if feature}  # a version may lack a feature
    standing = await grants.list_standing(connection, pool.agency_id, (), now)
    own = await snapshots.find_agency_own(connection, pool.agency_id, now)
    return agency_access(pool, opened, quotas, replace(own, grants=tuple(standing)))


async def publish_new_seats(
    uow: UnitOfWork,
    pool: Pool,
    subject_refs: Sequence[str],
    state: SeatState,
    began: Mapping[str, datetime],
    *,
    owning: bool = True,
) -> None:
    """Publish people's new seats, like publish_subjects, but without reading the seats, which are not written yet.

    `pool` is the pool before this transaction, which increases its revision once. `began` has the starts of trials that
    began with earlier seats. Set `owning` to False if these people are known to have nothing besides their seats.
    """
    own = await snapshots.find_own(uow.connection, pool.agency_id, subject_refs, uow.now) if owning else {}
    held = dict.fromkeys(subject_refs, HeldSeat(state)) | {
        subject_ref: HeldSeat(state, began_at) for subject_ref, began_at in began.items()
    }
    uow.publish_states(SubjectAccess, pool.agency_id, subjects_access(pool, pool.revision + 1, held, own))


async def publish_subjects(uow: UnitOfWork, agency_id: str, subject_refs: Sequence[str]) -> None:
    """Publish what people have now according to the tables; people without a seat are erased.

    Only for people who have, or had, a seat of the agency: nobody else with such a reference may be erased.
    """
    held = await _publish_held(uow, agency_id, subject_refs)
    erase_seats(uow, agency_id, [subject_ref for subject_ref in subject_refs if subject_ref not in held])


async def publish_uses(
    uow: UnitOfWork, uses: Sequence[PublishedUse], spent: Sequence[QuotaGrant], cause: str | None = None
) -> None:
    """Store and publish how much of quotas is used, and that grants of further uses are spent."""
    if uses:
        await writes.execute(uow.connection, quota_uses.save_uses(uses))
    subjects: dict[str, set[str]] = {}
    changed: list[PublishedUse | QuotaGrant] = [*uses, *spent]
    for each in changed:
        subjects.setdefault(each.agency_id, set()).add(each.subject_ref)
    for agency_id, subject_refs in subjects.items():
        await publish_holders(uow, agency_id, subject_refs, cause)


async def publish_holders(
    uow: UnitOfWork, agency_id: str, subject_refs: Collection[str], cause: str | None = None
) -> None:
    """Publish what people, or their whole agency, have now.

    A person may have a grant, a quota, or reported use without a seat. Such a person has no record.
    """
    people = sorted(set(subject_refs) - {WHOLE_AGENCY})
    if WHOLE_AGENCY in subject_refs:
        await publish_agency(uow, agency_id, cause)
    if people:
        await _publish_held(uow, agency_id, people, cause)


async def publish_granted(uow: UnitOfWork, agency_id: str, subject_ref: str) -> None:
    """publish_holders after a grant to a person or the whole agency.

    Raises GrantsFull if the grant leaves too little room in the record for what other commands add: they must never
    fail. This is checked even for a person without a seat, who may get one.
    """
    pool = await known_pool(uow, agency_id)
    if subject_ref == WHOLE_AGENCY:
        record = encode(await find_access(uow.connection, pool, uow.now))
    else:
        own = await snapshots.find_own(uow.connection, agency_id, [subject_ref], uow.now)
        held = {subject_ref: HeldSeat(SeatState.ACTIVE, uow.now)}
        record = subjects_access(pool, pool.revision, held, own)[subject_ref]
    if len(record or b"") * 100 > outbox.EVENT_BYTES * GRANTED_PERCENT:
        raise GrantsFull("the grants fill their recipient's record: wait until one ends, or revoke one")
    await publish_holders(uow, agency_id, [subject_ref])


async def _publish_held(
    uow: UnitOfWork, agency_id: str, subject_refs: Sequence[str], cause: str | None = None
) -> Container[str]:
    """Publish what these people have, except for those without a seat; returns those with one."""
    pool = await known_pool(uow, agency_id)
    held = await snapshots.find_seats(uow.connection, agency_id, subject_refs)
    own = await snapshots.find_own(uow.connection, agency_id, subject_refs, uow.now)
    uow.publish_states(SubjectAccess, agency_id, subjects_access(pool, pool.revision, held, own), causation_id=cause)
    return held


def erase_seats(
    uow: UnitOfWork, agency_id: str, subject_refs: Iterable[str], *, context: Context | None = None
) -> None:
    """Publish that people no longer have a seat. `context` is as in publish_encoded."""
    uow.publish_states(SubjectAccessErased, agency_id, dict.fromkeys(subject_refs), context=context)
