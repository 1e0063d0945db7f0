"""`muster trace` when some sources cannot be searched. With all of them: `tests/e2e/paths.py`."""

import asyncio
import json
import os
import sys
from pathlib import Path

import asyncpg

from muster_local.programs import migrations_of
from tests.support.databases import Databases


async def _traced(id_: str, environment: dict[str, str]) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "muster_operator", "trace", id_, "--json"),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    return process.returncode, stdout.decode(), stderr.decode()


async def test_what_is_found_is_shown_with_what_could_not_be_searched(databases: Databases, tmp_path: Path) -> None:
    """One service's database is there; three are not, and Kafka is down."""
    access = await databases.make("billing", migrations_of("billing"))
    admin = await asyncpg.connect(access.admin_dsn, server_settings={"search_path": "billing"})
    await admin.execute(
        """
        insert into audit (recorded_at, agency_id, actor, command, subject, request_id, correlation_id)
        values (now(), 'NASA', 'ada', 'RecordPayment', 'pay_1', 'r-1', 'cor_1')
        """
    )
    await admin.execute(
        """
        insert into outbox (
            topic, agency_id, epoch, first_sequence, type, time, correlation_id, recorded_at, events, payloads
        )
        values (
            'muster.billing.term', 'NASA', 1, 3, 'muster.billing.InvoicePaid.v1', now(), 'cor_1', now(), 1, '{""}'
        )
        """
    )
    await admin.close()
    environment = {
        "MUSTER_ADMIN_DSN": access.admin_dsn,
        "MUSTER_KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "MUSTER_HOME": str(tmp_path),
    }
    found, missing = await asyncio.gather(_traced("r-1", environment), _traced("pay_2", environment))
    assert (found[0], found[2]) == (0, "")
    answer = json.loads(found[1])
    unseen = [each.partition(":")[0] for each in answer["not_looked_at"]]
    others = [f"the database of {name}" for name in ("enrollment", "entitlements", "notify")]
    assert sorted(unseen) == sorted([*others, "the topics"])
    (path,) = answer["paths"]
    (command,) = path["steps"]
    (event,) = command["led_to"]
    assert (path["correlation_id"], command["command"], command["subject"]) == ("cor_1", "RecordPayment", "pay_1")
    assert (event["event_id"], event["record"]) == ("muster.billing.term/NASA/1/00000000000000000003", None)
    assert (missing[0], missing[1]) == (5, "")  # it may be where nobody could look
    assert "nothing was found for 'pay_2'; not searched: the database of enrollment" in missing[2]
