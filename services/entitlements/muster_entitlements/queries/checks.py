"""The read side of checks."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from muster_entitlements.domain.catalog import Feature, is_key, packaged_catalog
from muster_entitlements.domain.checks import Answer, Question, Reason, Register, check, count
from muster_entitlements.domain.meters import Meter
from muster_entitlements.domain.pools import Pool
from muster_entitlements.domain.quotas import Limit, Used
from muster_entitlements.domain.seats import SeatState
from muster_entitlements.domain.windows import Window
from muster_entitlements.queries.pairs import Pair, check_pairs, people_of, require_known
from muster_entitlements.replies import CheckReply, ChecksReply
from muster_entitlements.repository import catalogs, pools, usage
from muster_entitlements.repository.grants import list_standing, read_grants
from muster_entitlements.repository.meters import find_last
from muster_entitlements.repository.seat_trials import find_begun
from muster_entitlements.repository.seats import find_states
from muster_entitlements.repository.windows import NAMED_COLUMNS, to_window
from muster_runtime.database.locks import Lock
from muster_runtime.database.transactions import Connection, UnitOfWork
from muster_runtime.pacing import Pace

# How much of a quota these people used at an instant, by reference.
FindUsed = Callable[[Connection, Limit, Collection[str], datetime], Awaitable[Mapping[str, Used]]]

# A pool, and the windows of its enrollment that meet any further conditions.
_COLUMNS = f"{pools.COLUMNS}, {NAMED_COLUMNS}"
_POOL_AND_WINDOW = """
    pool as p
    left join feature_window as w
        on w.agency_id = p.agency_id and w.enrollment_id = p.enrollment_id
"""

_STANDING_GRANTS = """
    cross join lateral (
        select
            json_agg(json_build_object(
                'grant_id', grant_id, 'agency_id', agency_id, 'feature', feature, 'subject_ref', subject_ref,
                'mode', mode, 'monthly_quota', monthly_quota, 'starts_at', starts_at, 'ends_at', ends_at,
                'reason', reason
            )) as grants
        from entitlement_grant
        where
            agency_id = $1 and feature = $3 and (subject_ref = $2 or subject_ref is null)
            and revoked_at is null and (ends_at is null or ends_at > $4)
    ) as g
"""

# Takes an agency's lock, and reads all that a use depends on besides counted use: a statement less for each use.
_LOCK_FOR_USE = f"""
    select
        u.latest, u.entered, u.locked,
        {_COLUMNS}, s.state as seat_state, s.idle_since, u.grants,
        coalesce(s.trial_began_at, s.activated_at) as began_at, $5 = any(s.used_features) as adopted, u.unspent
    from lock_for_use($1, $2, $3, $4, $5) as u
    cross join lateral (select (u.p).*) as p
    cross join lateral (select (u.w).*) as w
    cross join lateral (select (u.s).*) as s
"""  # noqa: S608


async def find_check(connection: Connection, pair: Pair, now: datetime) -> CheckReply:
    """Whether a person may use a feature or, if None, whether they hold a usable seat. Raises FeatureUnknown."""
    question = await find_question(connection, pair.agency_id, pair.subject_ref, pair.feature, now)
    [answer] = await count_use([(pair.subject_ref, question, check(question, now))], connection, now)
    return CheckReply.of(answer)


async def find_checks(connection: Connection, pairs: Sequence[Pair], now: datetime) -> ChecksReply:
    """The checks of these pairs, in order. Raises InvalidInput, which names the pair."""
    registers = await _find_registers(connection, pairs, now)
    await require_known(connection, registers, pairs, now)
    checked = await check_pairs(registers, pairs, now)
    cases = [(pair.subject_ref, *case) for pair, case in zip(pairs, checked, strict=True)]
    return await ChecksReply.of(await count_use(cases, connection, now))


async def find_question(
    connection: Connection, agency_id: str, subject_ref: str, feature: str | None, now: datetime
) -> Question:
    """All that a check depends on besides counted use, in one statement of four index lookups.

    It reads the catalog too if the feature has neither a window nor a grant. Raises FeatureUnknown.
    """
    if feature is not None and not is_key(feature):
        (await catalogs.find_catalog(connection, now)).known(feature)
    row = await connection.fetchrow(
        f"""
        select
            {_COLUMNS}, s.state as seat_state, s.idle_since, g.grants,
            coalesce(s.trial_began_at, s.activated_at) as began_at, $3 = any(s.used_features) as adopted
        from {_POOL_AND_WINDOW} and w.feature = $3
        left join seat as s
            on s.agency_id = p.agency_id and s.subject_ref = $2 and s.state <> 'revoked'
            and s.generation = p.generation
        {_STANDING_GRANTS}
        where p.agency_id = $1
        """,  # noqa: S608
        agency_id,
        subject_ref,
        feature,
        now,
    )
    return await _question_of(connection, row, feature, now)


def lock_for_use(subject_ref: str, feature: str) -> Lock:
    """The lock of a transaction that counts a use: see `find_question_of_use`."""
    return Lock(_LOCK_FOR_USE, (subject_ref, feature if is_key(feature) else None))


async def find_question_of_use(uow: UnitOfWork, feature: str) -> tuple[Question, bool]:
    """`find_question` as of the transaction's lock, and whether the person or the agency has an unspent quota grant."""
    row: Any = uow.found[0]  # the driver's type is no Mapping
    enrolled = row["agency_id"] is not None
    return await _question_of(uow.connection, row if enrolled else None, feature, uow.now), row["unspent"]


async def _question_of(
    connection: Connection, row: Mapping[str, Any] | None, feature: str | None, now: datetime
) -> Question:
    """The question of a row; None if the agency was never enrolled. Raises FeatureUnknown."""
    if feature is not None and (row is None or (row["w_window_id"] is None and row["grants"] is None)):
        (await catalogs.find_catalog(connection, now)).known(feature)
    if row is None:
        return Question(None, None, feature, None)
    return Question(
        pool=_to_pool(row),
        seat=SeatState(row["seat_state"]) if row["seat_state"] else None,
        began_at=row["began_at"],
        used_on=row["idle_since"] if row["seat_state"] == SeatState.ACTIVE else None,
        feature=feature,
        window=to_window(row, "w_") if row["w_window_id"] else None,
        grants=read_grants(row["grants"]),
        adopted=bool(row["adopted"]),
    )


async def count_use(
    cases: Sequence[tuple[str, Question, Answer]],
    connection: Connection,
    now: datetime,
    find_used: FindUsed = usage.find_used,
) -> list[Answer]:
    """The answers to people's questions, with the counted use if a quota decides.

    It takes two statements per agency, feature, and quota, however many people ask.
    """
    answers = [answer for _, _, answer in cases]
    limited: defaultdict[Limit, list[int]] = defaultdict(list)
    of_quota = [place for place, answer in enumerate(answers) if answer.reason is Reason.QUOTA]
    limits = await find_limits(connection, [cases[place][1] for place in of_quota], now)
    for place, limit in zip(of_quota, limits, strict=True):
        if limit is not None:
            limited[limit].append(place)
    pace = Pace()
    for limit, places in limited.items():
        used = await find_used(connection, limit, {cases[place][0] for place in places}, now)
        for place in places:
            await pace.keep()
            answers[place] = count(answers[place], used[cases[place][0]], limit.quota)
    return answers


async def find_limits(connection: Connection, questions: Sequence[Question], now: datetime) -> list[Limit | None]:
    """What limits the use in each question that a quota decides; None if its window's version lacks the feature."""
    if not questions:
        return []
    known, last = packaged_catalog(), {}
    if granted := {question.feature for question in questions if question.window is None and question.feature}:
        known = await catalogs.find_catalog(connection, now)
        last = await find_last(connection, granted, known)
    numbers = {question.window.catalog_number for question in questions if question.window}
    versions = await usage.find_versions(connection, numbers, known)
    limits: dict[int, Limit | None] = {}  # many people share a question
    pace = Pace()
    for question in questions:
        await pace.keep()
        if id(question) not in limits:
            features = versions[question.window.catalog_number].features if question.window else last
            limits[id(question)] = _limit(question, features.get(question.feature or ""), now)
    return [limits[id(question)] for question in questions]


def _limit(question: Question, feature: Feature | None, now: datetime) -> Limit | None:
    if question.pool is None or feature is None:
        return None
    windows = {feature.key: question.window} if question.window else {}
    meter = Meter(question.pool.zone, windows, {}, term_ends_at=question.pool.ends_at)
    period, quota, *_ = meter.at(feature, now, question.grants, question.began_at)
    return None if quota is None else Limit(question.pool.agency_id, feature.key, quota, period)


async def _find_registers(connection: Connection, pairs: Sequence[Pair], now: datetime) -> dict[str, Register]:
    """All that the checks of these pairs depend on, by agency.

    Pools and windows are read first, at one instant. If an agency's entitlements change after that, the answers have
    the older revision, so they are valid only until a caller sees the newer one.
    """
    people = people_of(pairs)
    asked = {(pair.agency_id, pair.feature) for pair in pairs if pair.feature is not None and is_key(pair.feature)}
    rows = await connection.fetch(
        f"""
        select {_COLUMNS}
        from {_POOL_AND_WINDOW} and (w.agency_id, w.feature) in (select * from unnest($2::text[], $3::text[]))
        where p.agency_id = any($1::text[])
        """,  # noqa: S608
        list(people),
        [agency_id for agency_id, _ in asked],
        [feature for _, feature in asked],
    )
    known: dict[str, Pool] = {}
    windows: defaultdict[str, dict[str, Window]] = defaultdict(dict)
    pace = Pace()
    for row in rows:
        agency_id = row["agency_id"]
        if agency_id not in known:
            known[agency_id] = _to_pool(row)
        if row["w_window_id"]:
            windows[agency_id][row["w_feature"]] = to_window(row, "w_")
        await pace.keep()
    return {
        agency_id: await _find_register(connection, known.get(agency_id), windows[agency_id], own, now)
        for agency_id, own in people.items()
    }


async def _find_register(
    connection: Connection, pool: Pool | None, windows: Mapping[str, Window], people: Collection[str], now: datetime
) -> Register:
    if pool is None:
        return Register(None, {}, {})
    of_seats = any(window.seat_trial is not None for window in windows.values())
    return Register(
        pool=pool,
        windows=windows,
        seats=await find_states(connection, pool.agency_id, people),
        grants=await list_standing(connection, pool.agency_id, people, now),
        begun=(await find_begun(connection, {pool.agency_id: people}))[pool.agency_id] if of_seats else {},
    )


def _to_pool(row: Mapping[str, Any]) -> Pool:
    return Pool(**{field.name: row[field.name] for field in fields(Pool)})
