"""The read side of checks at past instants."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from muster_entitlements.domain.as_of import AsOf
from muster_entitlements.domain.checks import Answer, Question, Register
from muster_entitlements.domain.pools import Pool
from muster_entitlements.queries.checks import count_use
from muster_entitlements.queries.pairs import Pair, check_pairs, people_of, require_known
from muster_entitlements.replies import CheckReply, ChecksReply
from muster_entitlements.repository import catalogs, history, quota_history
from muster_runtime.database.transactions import Connection


async def find_past_check(connection: Connection, pair: Pair, as_of: AsOf) -> CheckReply:
    """The check of a pair at a past instant. Raises FeatureUnknown, InvalidInput."""
    registers = await _find_registers(connection, people_of([pair]), as_of)
    [(question, answer)] = await check_pairs(registers, [pair], as_of.at)
    if pair.feature is not None and question.window is None and not question.grants:
        (await catalogs.find_catalog(connection, as_of.at)).known(pair.feature, as_of.at)
    [counted] = await _count_use(connection, [pair], [(question, answer)], as_of)
    return CheckReply.of(counted)


async def find_past_checks(connection: Connection, pairs: Sequence[Pair], as_of: AsOf) -> ChecksReply:
    """The same for many pairs, in order. Raises InvalidInput, which names the pair, or an instant that is not kept."""
    registers = await _find_registers(connection, people_of(pairs), as_of)
    await require_known(connection, registers, pairs, as_of.at, past=True)
    checked = await check_pairs(registers, pairs, as_of.at)
    return await ChecksReply.of(await _count_use(connection, pairs, checked, as_of))


async def _count_use(
    connection: Connection, pairs: Sequence[Pair], checked: Sequence[tuple[Question, Answer]], as_of: AsOf
) -> list[Answer]:
    """The answers, with the limit if a quota decides. `used` is unknown, and so is `remaining` unless it is 0."""
    cases = [(pair.subject_ref, *case) for pair, case in zip(pairs, checked, strict=True)]
    counted = await count_use(cases, connection, as_of.at, partial(quota_history.find_used, as_of))
    return [replace(answer, used=None, remaining=0 if answer.remaining == 0 else None) for answer in counted]


async def _find_registers(
    connection: Connection, people: Mapping[str, Collection[str]], as_of: AsOf
) -> dict[str, Register]:
    """All that the checks of these people depended on, by agency."""
    pools = await history.find_pools(connection, people, as_of)
    return {
        agency_id: await _find_register(connection, pools.get(agency_id), own, as_of)
        for agency_id, own in people.items()
    }


async def _find_register(connection: Connection, pool: Pool | None, people: Collection[str], as_of: AsOf) -> Register:
    if pool is None:
        return Register(None, {}, {})
    windows = await history.list_windows(connection, pool.agency_id, pool.enrollment_id, as_of)
    seats = await history.find_seats(connection, pool, people, as_of)
    return Register(
        pool=pool,
        windows={window.feature: window for window in windows},
        seats={subject_ref: seat.state for subject_ref, seat in seats.items()},
        grants=await history.list_grants(connection, pool.agency_id, people, as_of),
        begun={subject_ref: seat.began_at for subject_ref, seat in seats.items() if seat.began_at is not None},
    )
