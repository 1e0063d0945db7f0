"""The issuer's keys: when they are requested again; an issuer that hangs makes no request hang."""

import asyncio
import json
import time
from pathlib import Path
from typing import Literal

import pytest
from structlog.testing import capture_logs

from muster_runtime.errors import RetryableError
from muster_runtime.http import keys
from muster_runtime.http.identity import Unauthenticated
from muster_runtime.http.issuer import Issuer
from muster_runtime.http.keys import KeySource
from muster_runtime.http.tokens import TokenVerifier
from tests.support.eventually import eventually
from tests.support.key_server import KeyServer
from tests.support.tokens import AUDIENCE, ISSUER, verifier_with

# Far more than a request without waiting needs, and far less than an issuer may take.
AT_ONCE = 2.0


class Monotonic:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer.load(tmp_path / "issuer.pem", issuer=ISSUER, audience=AUDIENCE)


@pytest.fixture
def successor(tmp_path: Path) -> Issuer:
    return Issuer.load(tmp_path / "successor.pem", issuer=ISSUER, audience=AUDIENCE)


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


def bearer(issuer: Issuer) -> str:
    return f"Bearer {issuer.token([], agency='*')}"


async def test_an_unknown_key_is_asked_for_once_in_a_while(
    issuer: Issuer, successor: Issuer, monotonic: Monotonic, tmp_path: Path
) -> None:
    stranger = Issuer.load(tmp_path / "stranger.pem", issuer=ISSUER)
    with KeyServer(issuer.jwks()) as server:
        verifier = verifier_with(KeySource(server.url, monotonic))
        for _ in range(3):
            await verifier.verify(bearer(issuer))
        assert server.asked == 1

        server.document = successor.jwks()
        await verifier.verify(bearer(successor))
        assert server.asked == 2

        for _ in range(3):
            with pytest.raises(Unauthenticated):
                await verifier.verify(bearer(stranger))
        assert server.asked == 2

        monotonic.seconds += 31
        with pytest.raises(Unauthenticated):
            await verifier.verify(bearer(stranger))
        assert server.asked == 3


async def test_keys_outlive_the_issuers_outage_and_are_renewed_after_it(
    issuer: Issuer, successor: Issuer, monotonic: Monotonic
) -> None:
    with KeyServer(issuer.jwks(), "fail") as server:
        source = KeySource(server.url, monotonic)
        verifier = verifier_with(source)
        for _ in range(2):
            with pytest.raises(RetryableError):
                await verifier.verify(bearer(issuer))
        assert server.asked == 1

        monotonic.seconds += 3
        server.manner = "answer"
        await verifier.verify(bearer(issuer))
        assert await source.reason() is None

        monotonic.seconds += 660
        server.manner = "fail"
        await verifier.verify(bearer(issuer))
        assert "500" in await eventually(source.reason)
        await verifier.verify(bearer(issuer))

        monotonic.seconds += 3
        server.manner = "answer"
        server.document = successor.jwks()
        await eventually(lambda: _is_refused(verifier, issuer))
        await verifier.verify(bearer(successor))
        assert await source.reason() is None


async def _is_refused(verifier: TokenVerifier, issuer: Issuer) -> bool:
    try:
        await verifier.verify(bearer(issuer))
    except Unauthenticated:
        return True
    return False


async def test_a_secret_in_the_query_of_the_address_is_never_shown(issuer: Issuer, monotonic: Monotonic) -> None:
    with KeyServer(issuer.jwks(), "fail") as server, capture_logs() as logs:
        source = KeySource(f"{server.url}?key=canary", monotonic)
        reason = await eventually(source.reason)
    assert reason == "the token issuer's keys cannot be read: it answered 500"
    assert [line["error"] for line in logs if line["event"] == "issuer_keys_failed"] == ["it answered 500"]
    assert "canary" not in str(logs)


@pytest.mark.parametrize("document", [{"keys": []}, {}, [], "keys", {"keys": [7]}, {"keys": [{"kty": "RSA"}]}], ids=str)
async def test_an_answer_that_holds_no_keys_changes_nothing(
    issuer: Issuer, monotonic: Monotonic, document: object
) -> None:
    with KeyServer(issuer.jwks()) as server:
        source = KeySource(server.url, monotonic)
        await verifier_with(source).verify(bearer(issuer))
        monotonic.seconds += 660
        server.document = document
        assert await eventually(source.reason)
        await verifier_with(source).verify(bearer(issuer))


@pytest.mark.parametrize("manner", ["hang", "trickle"])
async def test_no_request_waits_for_an_issuer_that_hangs_while_there_are_keys(
    issuer: Issuer,
    successor: Issuer,
    monotonic: Monotonic,
    manner: Literal["hang", "trickle"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keys, "READ_SECONDS", 1.0)
    with KeyServer(issuer.jwks()) as server:
        source = KeySource(server.url, monotonic)
        verifier = verifier_with(source)
        await verifier.verify(bearer(issuer))
        server.manner = manner
        monotonic.seconds += 660

        async with asyncio.timeout(AT_ONCE):
            for _ in range(50):
                await verifier.verify(bearer(issuer))
        assert server.asked <= 2, "one task asks the issuer for everyone who waits"

        # Nobody knows whether this key is good: it is refused in bounded time, and can be tried again.
        strange = [verifier.verify(bearer(successor)) for _ in range(20)]
        started = time.monotonic()
        answers = await asyncio.gather(*strange, return_exceptions=True)
        assert time.monotonic() - started < keys.WAIT_SECONDS + AT_ONCE
        assert {type(answer) for answer in answers} <= {RetryableError, Unauthenticated}
        assert "cannot be read" in await eventually(source.reason)

        monotonic.seconds += 31
        server.manner = "answer"
        server.document = successor.jwks()
        await verifier.verify(bearer(successor))
        assert await source.reason() is None


async def test_without_keys_a_flood_of_requests_is_refused_in_bounded_time(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "READ_SECONDS", 2.0)
    with KeyServer(issuer.jwks(), "hang") as server:
        source = KeySource(server.url)
        verifier = verifier_with(source)
        started = time.monotonic()
        answers = await asyncio.gather(*(verifier.verify(bearer(issuer)) for _ in range(300)), return_exceptions=True)
        assert time.monotonic() - started < keys.READ_SECONDS + AT_ONCE
        assert [type(answer) for answer in answers] == [RetryableError] * 300
        assert sum("too many" in str(answer) for answer in answers) == 300 - keys.MAX_WAITING
        assert server.asked == 1
        assert "token issuer" in (await source.reason() or "")


async def test_the_age_of_the_keys_counts_from_when_they_were_last_read(issuer: Issuer, monotonic: Monotonic) -> None:
    with KeyServer(issuer.jwks(), "fail") as server:
        source = KeySource(server.url, monotonic)
        monotonic.seconds += 20
        assert await eventually(source.reason)
        assert source.age == 20, "never read: counted from the start"

        monotonic.seconds += 3
        server.manner = "answer"
        await verifier_with(source).verify(bearer(issuer))
        assert source.age == 0
        monotonic.seconds += 660
        server.manner = "fail"
        await verifier_with(source).verify(bearer(issuer))
        assert await eventually(source.reason)
        assert source.age == 660


async def test_a_replaced_file_of_keys_is_read_at_once(issuer: Issuer, successor: Issuer, tmp_path: Path) -> None:
    """It does not take ten minutes: the first token with a new key waits for it, and an old key ends with its file."""
    file, new = tmp_path / "jwks.json", tmp_path / "new.json"
    file.write_text(json.dumps(issuer.jwks()))
    verifier = verifier_with(KeySource(str(file)))
    await verifier.verify(bearer(issuer))
    new.write_text(json.dumps({"keys": [*issuer.jwks()["keys"], *successor.jwks()["keys"]]}))
    new.replace(file)
    for each in (successor, issuer):
        await verifier.verify(bearer(each))
    file.write_text(json.dumps(successor.jwks()))

    async def refused() -> bool:
        try:
            await verifier.verify(bearer(issuer))
        except Unauthenticated:
            return True
        return False

    await eventually(refused)
