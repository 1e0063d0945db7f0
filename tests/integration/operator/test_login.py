"""`muster login` and client credentials, with a real OpenID provider, whose keys the services discover."""

import asyncio
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from muster_enrollment.bootstrap import build
from muster_enrollment.settings import EnrollmentSettings
from muster_local.oidc import Lifetimes
from muster_operator.failures import Refused
from muster_operator.session.cache import SessionCache
from muster_runtime.process.roles import Role
from tests.support.identity_provider import (
    AUTOMATION,
    LOGIN_CLIENT,
    PASSWORD,
    SECRET,
    IdentityProvider,
    identity_provider,
)
from tests.support.muster_commands import muster, quiet_services, served
from tests.support.services import ServiceRunner

# Shorter than the lifetime that a token must have left: every command refreshes it.
LIFETIMES = Lifetimes(access_token=50, interval=0.1)


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentityProvider]:
    with identity_provider(tmp_path_factory.mktemp("provider"), LIFETIMES) as running:
        yield running


@pytest.fixture
def configured(provider: IdentityProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of somebody who may log in; returns the session's folder."""
    for name, value in {
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "MUSTER_OIDC_ISSUER": provider.issuer,
        "MUSTER_CLIENT_ID": LOGIN_CLIENT,
        "COLUMNS": "200",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "config" / "muster"


@pytest.fixture
def quiet() -> Iterator[None]:
    with quiet_services():
        yield


async def log_in(provider: IdentityProvider, *, deny: bool = False) -> tuple[int | None, str, str]:
    """Run `muster login` and do what it says in a browser; returns its status, its output, and what it asked for."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "muster_operator", "login", "--json"),
        env=os.environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    asked = ""
    while not (found := re.search(r"or open (\S+)\n", asked)):
        line = await process.stderr.readline()
        assert line, asked
        asked += line.decode()
    if deny:
        await asyncio.to_thread(provider.deny, found[1])
    else:
        wrong, right = await asyncio.to_thread(provider.approve, found[1], "a guess", PASSWORD)
        assert "Wrong name or password" in wrong
        assert "You are logged in" in right
    output, errors = await process.communicate()
    return process.returncode, output.decode(), asked + errors.decode()


@pytest.mark.usefixtures("quiet")
async def test_a_person_logs_in_works_and_logs_out(
    provider: IdentityProvider, configured: Path, run_service: ServiceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = await muster("whoami")
    assert (needs.exit_code, "run muster login" in needs.stderr) == (2, True), needs.stderr
    status, output, asked = await log_in(provider)
    assert status == 0, asked
    assert re.search(r"enter the code [A-Z]{4}-[A-Z]{4}\n", asked)
    who = json.loads(output)
    assert (who["subject"], who["agency"], who["issuer"]) == ("ada", "*", provider.issuer)
    file = configured / "session.json"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (configured, file)] == [0o700, 0o600]

    service = await run_service(
        build, EnrollmentSettings, roles=frozenset({Role.API}), oidc_issuer=provider.issuer, oidc_jwks=""
    )
    async with served(service) as url:
        monkeypatch.setenv("MUSTER_ENROLLMENT_URL", url)
        for command in (["agency", "list"], ["parked", "list"]):
            done = await muster(*command, "--json")
            assert (done.exit_code, json.loads(done.stdout)) == (0, {"items": []}), done.stderr
        bearer = {"authorization": f"Bearer {SessionCache().token()}"}
        async with httpx.AsyncClient(base_url=url, headers=bearer) as client:
            refused = await client.post("/v1/agencies/NASA/withdrawal", json={})
        assert (refused.status_code, refused.json()["scope"]) == (403, "enrollment:write")

        # A program has tokens of its own, whoever is logged in; it is the auditor of two agencies.
        (configured / "secret").write_text(f"{SECRET}\n")
        monkeypatch.setenv("MUSTER_CLIENT_ID", AUTOMATION)
        monkeypatch.setenv("MUSTER_CLIENT_SECRET_FILE", str(configured / "secret"))
        who = json.loads((await muster("whoami", "--json")).stdout)
        assert (who["subject"], who["agency"]) == (AUTOMATION, ["NASA", "DOE"])
        assert (await muster("agency", "list")).exit_code == 0
        parked = await muster("parked", "list")
        assert (parked.exit_code, "2 agencies" in parked.stderr) == (4, True), parked.stderr
        (configured / "secret").write_text("another")
        wrong = await muster("agency", "list")
        assert (wrong.exit_code, "invalid_client" in wrong.stderr) == (4, True), wrong.stderr
        monkeypatch.delenv("MUSTER_CLIENT_SECRET_FILE")

    session = SessionCache().find()
    assert session is not None
    assert session.refresh_token is not None
    assert (await muster("logout")).stdout == "Logged out\n"
    assert not file.exists()
    with pytest.raises(Refused, match="invalid_grant"):
        session.client.by_refresh_token(session.refresh_token)
    assert (await muster("agency", "list")).exit_code == 2


async def test_concurrent_commands_share_a_refresh_token_that_works_once(
    provider: IdentityProvider, configured: Path
) -> None:
    """The provider ends the session of a refresh token that is used twice."""
    assert (await log_in(provider))[0] == 0
    with ThreadPoolExecutor(4) as commands:
        tokens = list(commands.map(lambda _: SessionCache().token(), range(6)))
    assert len(set(tokens)) == 6, "each was about to expire at once"
    stale = SessionCache().find()
    assert stale is not None
    assert SessionCache().token()

    for path, mode in ((configured / "session.json", 0o640), (configured, 0o750)):
        private = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode)
        open_to_others = await muster("whoami")
        assert (open_to_others.exit_code, f"mode {mode:04o}" in open_to_others.stderr) == (2, True)
        path.chmod(private)

    SessionCache().save(stale)  # its refresh token has been used
    ended = await muster("whoami")
    assert (ended.exit_code, "the session has ended: run muster login" in ended.stderr) == (4, True)


async def test_a_login_that_is_denied_leaves_no_session(provider: IdentityProvider, configured: Path) -> None:
    status, output, asked = await log_in(provider, deny=True)
    assert (status, output, "denied" in asked) == (4, "", True)
    assert not configured.exists()


def test_the_providers_pages_load_nothing_from_elsewhere(provider: IdentityProvider) -> None:
    assert not re.search(r"https?://(?!127\.0\.0\.1)", httpx.get(f"{provider.issuer}/device").text)
