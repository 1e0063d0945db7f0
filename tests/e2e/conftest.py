"""A stack whose operator follows the runbooks."""

import asyncio
import shutil
from collections.abc import Iterator

import pytest

from muster_contracts import topics
from muster_local.servers import kafka_at
from muster_operator.databases.provisioning import drop
from muster_operator.topics import delete_topics
from tests.support.operator import Operator
from tests.support.scratch import make_scratch


@pytest.fixture(scope="module")
def operator(postgres: str, kafka_bootstrap: str) -> Iterator[Operator]:
    """One stack for all tests of a module: its start is expensive, and each runbook leaves it in order."""
    operator = Operator(make_scratch("muster-runbooks-"))
    operator.run("muster up")
    database = operator.stack.admin_dsn.rpartition("/")[2].partition("?")[0]
    prefix = operator.stack.topic_prefix
    yield operator
    operator.run("muster down")
    asyncio.run(drop(postgres, database))
    asyncio.run(delete_topics(kafka_at(kafka_bootstrap), [prefix + name for name in topics()]))
    shutil.rmtree(operator.folder)
