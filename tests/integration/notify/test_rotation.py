"""The mail server's password and the key of the webhooks' secrets are rotated while notify works."""

from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet, InvalidToken
from pydantic import SecretStr

from muster_notify.adapters.vault import Vault
from muster_notify.bootstrap import build
from muster_notify.repository import endpoints
from muster_notify.settings import NotifySettings
from muster_notify.workers import resealer
from muster_runtime.process.roles import ALL_ROLES, Role
from tests.integration.notify.conftest import START, Notify, contact, enrolled, paid, reinstated
from tests.integration.notify.mail import MailServer, mail_server
from tests.integration.notify.receiver import Receiver
from tests.support.contexts import CONTEXT
from tests.support.eventually import eventually
from tests.support.secret_files import SecretFiles, new_password
from tests.support.services import ServiceRunner


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SecretFiles:
    """The folder of the service's secrets."""
    files = SecretFiles(tmp_path / "secrets")
    monkeypatch.setenv("MUSTER_SECRETS_DIR", str(files.folder))
    return files


async def test_rotated_passwords_and_keys_lose_no_delivery(
    run_service: ServiceRunner, files: SecretFiles, receiver: Receiver
) -> None:
    password, key, other_key = new_password(), Fernet.generate_key().decode(), Fernet.generate_key().decode()
    files.put("MUSTER_SMTP_PASSWORD", password)
    files.put("MUSTER_SECRET_KEY", key)
    async with mail_server(MailServer(password=password)) as mail:
        port = mail.port
        settings: dict[str, Any] = {
            "smtp_port": port,
            "smtp_starttls": False,
            "smtp_username": "notify",
            "webhook_allow_private": True,
        }
        notify = Notify(await run_service(build, NotifySettings, **settings))
        notify.service.clock.move(START)
        first = await notify.add_webhook(receiver.url)
        await notify.service.publish(contact(), enrolled())
        await notify.until(2, state="delivered")

    files.put("MUSTER_SECRET_KEY", f"{other_key},{key}")
    new = new_password()
    async with mail_server(MailServer(port, password=new)) as mail:
        await notify.service.publish(reinstated())
        await notify.waits("no connection to the mail server: the login was refused: 535")
        files.put("MUSTER_SMTP_PASSWORD", new)
        notify.move(seconds=5)
        await notify.until(4, state="delivered")
        second = await notify.add_webhook(f"{receiver.url}/second")
        await notify.service.publish(paid())
        await notify.until(7, state="delivered")
        assert len(mail.messages) == 2

    secrets = {"/hook": first["secret"], "/hook/second": second["secret"]}
    events = [(request.path, request.verified(secrets[request.path])["type"]) for request in receiver.requests]
    assert sorted(events) == [
        ("/hook", "muster.billing.InvoicePaid.v1"),
        ("/hook", "muster.enrollment.AgencyEnrolled.v1"),
        ("/hook", "muster.enrollment.AgencyReinstated.v1"),
        ("/hook/second", "muster.billing.InvoicePaid.v1"),
    ]
    sealed = await notify.service.admin.fetchval(
        "select sealed_secret from webhook where id = $1", second["webhook_id"]
    )
    assert Vault(SecretStr(other_key)).open(sealed) == second["secret"]


async def test_a_rotated_key_seals_every_secret_again_so_that_the_old_one_can_be_removed(
    run_service: ServiceRunner, files: SecretFiles, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resealer, "STEP", 1)
    keys = [Fernet.generate_key().decode() for _ in range(3)]
    old, new, stranger = keys
    files.put("MUSTER_SECRET_KEY", old)
    notify = Notify(await run_service(build, NotifySettings, webhook_allow_private=True))
    notify.service.clock.move(START)
    first, other = await notify.add_webhook(receiver.url), await notify.add_webhook(f"{receiver.url}/2", "*")
    rotation = f"/v1/agencies/NASA/webhooks/{first['webhook_id']}/secret-rotation"
    rotated = (await notify.service.client.post(rotation, json={})).json()
    deleted = await notify.add_webhook(f"{receiver.url}/3")
    await notify.service.client.delete(f"/v1/agencies/NASA/webhooks/{deleted['webhook_id']}")

    async def opened_by(key: str) -> set[str]:
        """The secrets that the key opens."""
        vault, opened = Vault(SecretStr(key)), set()
        for row in await notify.service.admin.fetch("select sealed_secret, previous_secret from webhook"):
            for sealed in (each for each in row if each is not None):
                with suppress(InvalidToken):
                    opened.add(vault.open(sealed))
        return opened

    async def warnings() -> list[str]:
        found: list[str] = (await notify.get("/health/ready")).json()["warnings"]
        return found

    secrets = {first["secret"], rotated["secret"], other["secret"]}
    assert await opened_by(old) == secrets
    files.put("MUSTER_SECRET_KEY", f"{new},{old}")
    await eventually(lambda: _are(opened_by(new), secrets))
    assert await opened_by(old) == set()
    # Without the old key: both secrets of the rotation sign.
    files.put("MUSTER_SECRET_KEY", new)
    await notify.service.publish(enrolled())
    await eventually(lambda: len(receiver.requests) >= 2)
    assert {len(request.headers["webhook-signature"].split()) for request in receiver.requests} == {1, 2}
    assert await warnings() == []
    # Its own key is lost: readiness says so, and what was sealed stays as it is.
    files.put("MUSTER_SECRET_KEY", stranger)
    lost = "webhook endpoints have a secret that no key of MUSTER_SECRET_KEY opens: 2"
    await eventually(lambda: _are(warnings(), [lost]))
    assert 'muster_warnings{about="service",service="notify"} 1.0' in (await notify.get("/metrics")).text
    files.put("MUSTER_SECRET_KEY", f"{stranger}\n{new}")
    await eventually(lambda: _are(opened_by(stranger), secrets))
    await eventually(lambda: _are(warnings(), []))


async def test_a_secret_that_is_rotated_while_the_keys_are_is_kept(
    run_service: ServiceRunner, files: SecretFiles
) -> None:
    """The secret changes between the resealer's look and its turn."""
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    files.put("MUSTER_SECRET_KEY", old)
    notify = Notify(await run_service(build, NotifySettings))
    webhook = await notify.add_webhook("https://agency.example/hook")
    admin, vault = notify.service.admin, Vault(SecretStr(new))

    async def resealer_waits() -> bool:
        waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'advisory'"
        return bool(await admin.fetchval(waiting) == 1)

    async def resealer_is_done() -> bool:
        return bool(
            await admin.fetchval(
                """
                select count(*) = 0
                from pg_locks
                inner join pg_database on pg_database.oid = pg_locks.database
                where locktype = 'advisory' and datname = current_database()
                """
            )
        )

    async with notify.service.runtime.database.write("NASA", context=CONTEXT) as uow:
        files.put("MUSTER_SECRET_KEY", f"{new},{old}")
        await eventually(resealer_waits)
        await endpoints.save_secret(uow.connection, webhook["webhook_id"], vault.seal("whsec_rotated"), None)
    await eventually(resealer_is_done)
    assert vault.open(await admin.fetchval("select sealed_secret from webhook")) == "whsec_rotated"


async def test_each_secret_is_sealed_again_whatever_else_is_sealed_with(
    run_service: ServiceRunner, files: SecretFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One endpoint's key is lost; only the other one's previous secret, and later its current one, has the old key."""
    monkeypatch.setattr(resealer, "ROUND_SECONDS", 0.0)
    old, new, stranger = (Fernet.generate_key().decode() for _ in range(3))
    files.put("MUSTER_SECRET_KEY", old)
    notify = Notify(await run_service(build, NotifySettings, roles=ALL_ROLES - {Role.WORKER}))
    admin = notify.service.admin
    lost, webhook = [await notify.add_webhook(f"https://agency.example/{number}") for number in range(2)]
    seal = "update webhook set sealed_secret = $2 where id = $1"
    await admin.execute(seal, lost["webhook_id"], Vault(SecretStr(stranger)).seal("whsec_lost"))
    files.put("MUSTER_SECRET_KEY", f"{new},{old}")
    path = f"/v1/agencies/NASA/webhooks/{webhook['webhook_id']}/secret-rotation"
    rotated = (await notify.service.client.post(path, json={})).json()["secret"]
    vault = Vault(SecretStr(new))

    async def opened() -> list[str]:
        """Both secrets, once the new key opens them."""
        query = "select sealed_secret, previous_secret from webhook where id = $1"
        try:
            return [vault.open(sealed) for sealed in await admin.fetchrow(query, webhook["webhook_id"]) or ()]
        except InvalidToken:
            return []

    assert await opened() == []
    await run_service(build, NotifySettings, roles=frozenset({Role.WORKER}), beside=notify.service)
    assert await eventually(opened) == [rotated, webhook["secret"]]
    # By a process whose file was replaced later.
    await admin.execute(seal, webhook["webhook_id"], Vault(SecretStr(old)).seal(rotated))
    assert await eventually(opened) == [rotated, webhook["secret"]]


async def _are(found: Awaitable[object], expected: object) -> bool:
    return await found == expected
