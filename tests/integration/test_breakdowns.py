"""What a process says that cannot start, or breaks down: why, without a secret, and in its log alone."""

import asyncio
import json
import subprocess
import sys

import pytest
from pydantic import SecretStr

from muster_local.programs import migrations_of
from muster_runtime.database.dbmate import MigrationFailed, migrate
from muster_runtime.process.start_checks import StartRefused, require_sessions
from tests.support.services import TokenIssuer

CANARY = "canary-password-4711"

# A password that nobody has escaped: the rest of the address is read as something else.
UNESCAPED = SecretStr(f"postgresql://enrollment_worker:{CANARY}/x@127.0.0.1:1/muster")


async def test_an_address_that_cannot_be_read_is_refused_without_its_password() -> None:
    with pytest.raises(StartRefused) as refused:
        await require_sessions("MUSTER_POSTGRES_API_DSN", UNESCAPED)
    with pytest.raises(MigrationFailed) as failed:
        await asyncio.to_thread(migrate, UNESCAPED, "enrollment", migrations_of("enrollment"))
    for said in (str(refused.value), str(failed.value)):
        assert "percent-encode" in said
        assert CANARY not in said


def test_a_process_that_breaks_down_logs_why_and_leaves_no_other_report(tokens: TokenIssuer) -> None:
    environment = {
        "MUSTER_ENVIRONMENT": "sandbox",
        "MUSTER_OIDC_ISSUER": "https://issuer.test",
        "MUSTER_OIDC_JWKS": str(tokens.jwks),
        "MUSTER_KAFKA_BOOTSTRAP": "127.0.0.1:no-port",  # which nothing foresees
    }
    arguments = [sys.executable, "-m", "muster_enrollment", "serve"]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    last = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, done.stderr, last["event"], last["level"]) == (1, "", "service_failed", "critical")
    assert last["error"].startswith("ValueError")
    assert last["stack"]
