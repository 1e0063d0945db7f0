"""What a request for many agencies reads: only the windows that it asks for, without an idle transaction."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from muster_contracts.entitlements import AccessMode, CatalogRule
from muster_entitlements.domain.catalog import Feature, Quota, Version, VersionState
from muster_entitlements.domain.usage import Use
from muster_entitlements.handlers.usage import Nearest, count_uses
from muster_entitlements.queries import catalog as queries
from muster_entitlements.queries.checks import find_checks
from muster_entitlements.queries.pairs import Pair
from muster_runtime.database.transactions import EVERY_AGENCY, Connection
from tests.integration.entitlements.conftest import START, Entitlements
from tests.support.contexts import CONTEXT

AGENCIES = ("DOE", "NASA")


@dataclass
class Counting:
    """A connection that counts the rows with windows, and the statements that ask who is above a quota."""

    connection: Any
    windows: int = 0
    above: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    async def fetch(self, statement: str, *arguments: Any) -> Sequence[Any]:
        rows: Sequence[Any] = await self.connection.fetch(statement, *arguments)
        self.windows += len(rows) if "feature_window as w" in statement else 0
        self.above += "above as" in statement
        return rows


async def enroll_all(entitlements: Entitlements) -> None:
    for agency in AGENCIES:
        await replace(entitlements, agency=agency).enroll(cap=5)


async def test_checks_read_the_windows_that_they_ask_for(entitlements: Entitlements) -> None:
    await enroll_all(entitlements)
    pairs = [Pair(agency, f"sub_{n}", "deep-research") for agency in AGENCIES for n in range(3)]
    pairs.append(Pair("NASA", "sub_0", "frontier-models"))
    async with entitlements.service.runtime.database.read(*AGENCIES) as connection:
        counting = Counting(connection)
        reply = await find_checks(cast("Connection", counting), pairs, START)
    assert len(reply.answers) == 7
    assert counting.windows == 3


async def test_a_batch_of_use_reads_the_windows_that_it_counts(entitlements: Entitlements) -> None:
    await enroll_all(entitlements)
    uses = {
        place: Use(agency, "deep-research", f"sub_{place}", 1, START, bytes([place]) * 16, place, f"use-{place}")
        for place, agency in enumerate(AGENCIES * 3)
    }
    database = entitlements.service.runtime.database
    async with database.write(*AGENCIES, context=CONTEXT) as uow:
        counting = Counting(uow.connection)
        uow.connection = cast("Connection", counting)
        tally = await count_uses(uow, uses, Nearest())
    assert (tally.counted, tally.refused) == (6, {})
    assert counting.windows == 2


LOWER = Feature(
    key="deep-research", name="Deep Research", mode=AccessMode.QUOTA, mode_after=AccessMode.NONE, quota=Quota(limit=1)
)


async def test_a_plan_is_computed_in_no_transaction(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enroll_all(entitlements)
    reading, computed, begun = 0, [], []

    @asynccontextmanager
    async def read(**options: Any) -> AsyncIterator[Connection]:
        nonlocal reading
        begun.append(options)
        async with entitlements.service.runtime.database.read(EVERY_AGENCY, **options) as connection:
            reading += 1
            yield connection
            reading -= 1

    def watched(compute: Callable[..., Any]) -> Callable[..., Any]:
        def computing(*arguments: Any) -> Any:
            computed.append(reading)
            return compute(*arguments)

        return computing

    for compute in ("effects", "lowered_quotas"):
        monkeypatch.setattr(queries, compute, watched(getattr(queries, compute)))
    plan = await queries.find_plan(read, CatalogRule.NOW, (LOWER,), START)
    assert plan.agencies == 2
    assert computed == [0, 0, 0, 0]
    assert begun == [{}, {"partitioned": "usage_sum"}]  # only the second one reads counted use


async def test_the_check_of_a_publication_takes_one_statement_per_agency(entitlements: Entitlements) -> None:
    await enroll_all(entitlements)
    version = Version(2, VersionState.DRAFT, CatalogRule.NOW, (LOWER,), 1, None, None)
    async with entitlements.service.runtime.database.read(EVERY_AGENCY) as connection:
        counting = Counting(connection)
        assert await queries.find_above(cast("Connection", counting), version, START) == []
    assert counting.above == 2
