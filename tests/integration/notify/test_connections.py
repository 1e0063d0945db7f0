"""Where a webhook connects: to a checked address of the host's own name, and nowhere else."""

import asyncio
import socket
import ssl
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import httpcore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from muster_local.certificates import Authority
from muster_notify.adapters import webhooks
from muster_notify.adapters.addresses import AddressPolicy
from muster_notify.adapters.bounded import BoundedNetwork
from muster_notify.adapters.vault import Vault
from muster_notify.adapters.webhooks import WebhookSender
from muster_notify.bootstrap import build
from muster_notify.domain.urls import Address
from muster_notify.settings import NotifySettings
from muster_runtime.clock import SystemClock
from muster_runtime.service import Service
from tests.integration.notify.conftest import START, Notify, reinstated, with_sender
from tests.integration.notify.receiver import Receiver, receiving
from tests.support.services import ServiceRunner

INTERIM = b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100


async def test_a_redirect_is_not_followed(notify: Notify, receiver: Receiver) -> None:
    await notify.add_webhook(receiver.url)
    receiver.answer = lambda _: 307
    await notify.service.publish(reinstated())
    await notify.waits("answered 307")
    assert [request.path for request in receiver.requests] == ["/hook"]


async def test_a_flood_of_interim_answers_is_not_read_to_its_end(notify: Notify, receiver: Receiver) -> None:
    await notify.add_webhook(receiver.url)
    receiver.interim, receiver.flood = INTERIM, True
    await notify.service.publish(reinstated())
    await notify.waits("no answer: RemoteProtocolError")
    receiver.flood = False
    notify.move(seconds=5)
    await notify.until(1, channel="webhook", state="delivered")


async def test_a_flood_over_tls_is_not_read_to_its_end(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path, "agency.invalid")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=certificate)
    async with (
        receiving(Receiver(interim=INTERIM, flood=True), tls) as receiver,
        httpcore.AsyncConnectionPool(ssl_context=trusting, network_backend=BoundedNetwork()) as connections,
        asyncio.timeout(10),
    ):
        with pytest.raises(httpcore.RemoteProtocolError):
            await connections.request(
                "POST",
                f"https://127.0.0.1:{receiver.port}/",
                content=b"{}",
                extensions={"sni_hostname": "agency.invalid"},
            )


async def test_a_name_that_resolves_to_a_private_address_is_never_connected_to(
    run_service: ServiceRunner, receiver: Receiver
) -> None:
    notify = Notify(await run_service(build, NotifySettings))
    notify.service.clock.move(START)
    await notify.add_webhook(f"https://localhost:{receiver.port}/hook")
    await notify.service.publish(reinstated())
    delivery = await notify.waits("the host name has no address, or one that is not public")
    assert "127.0.0.1" not in str(delivery)
    assert receiver.connections == 0


async def test_a_name_is_resolved_anew_at_each_attempt_and_its_checked_address_is_used(
    run_service: ServiceRunner, receiver: Receiver
) -> None:
    resolved: list[str] = []

    async def resolve(host: str) -> list[Address]:
        resolved.append(host)
        return [ip_address("127.0.0.1")]

    def build_with_names(settings: NotifySettings) -> Service:
        policy = AddressPolicy(allow_private=True, resolve=resolve)
        return with_sender(settings, WebhookSender(Vault(settings.secret_key), policy, 2))

    notify = Notify(await run_service(build_with_names, NotifySettings, webhook_allow_private=True))
    await notify.add_webhook(f"http://agency.invalid:{receiver.port}/hook")
    await notify.service.publish(reinstated(), reinstated())
    await notify.until(2, channel="webhook", state="delivered")
    assert resolved == ["agency.invalid"] * 2
    assert {request.headers["host"] for request in receiver.requests} == {f"agency.invalid:{receiver.port}"}
    assert receiver.connections == 2


async def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    run_service: ServiceRunner, receiver: Receiver
) -> None:
    async def resolve(_: str) -> list[Address]:
        return [ip_address("127.0.0.2"), ip_address("127.0.0.1")]

    def build_with_names(settings: NotifySettings) -> Service:
        policy = AddressPolicy(allow_private=True, resolve=resolve)
        return with_sender(settings, WebhookSender(Vault(settings.secret_key), policy, 2))

    notify = Notify(await run_service(build_with_names, NotifySettings, webhook_allow_private=True))
    await notify.add_webhook(f"http://agency.invalid:{receiver.port}/hook")
    silent = ("127.0.0.2", receiver.port)
    # The first connection fills the queue, so that the system drops the next ones.
    with socket.create_server(silent, backlog=0), socket.create_connection(silent):
        await notify.service.publish(reinstated())
        await notify.until(1, channel="webhook", state="delivered")
    assert receiver.connections == 1


async def test_the_certificate_is_checked_against_the_name_and_not_the_address(
    run_service: ServiceRunner, tmp_path: Path
) -> None:
    asked_for: list[str | None] = []
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(self_signed(tmp_path, "agency.invalid"))
    tls.sni_callback = lambda _socket, name, _context: asked_for.append(name)
    receiver = Receiver()

    async def resolve(_: str) -> list[Address]:
        return [ip_address("127.0.0.1")]

    def build_with_names(settings: NotifySettings) -> Service:
        policy = AddressPolicy(allow_private=True, resolve=resolve)
        return with_sender(settings, WebhookSender(Vault(settings.secret_key), policy, 2))

    notify = Notify(await run_service(build_with_names, NotifySettings, webhook_allow_private=True))
    async with receiving(receiver, tls):
        await notify.add_webhook(f"https://agency.invalid:{receiver.port}/hook")
        await notify.service.publish(reinstated())
        await notify.waits("no answer: ConnectError")
    assert asked_for == ["agency.invalid"]
    assert receiver.requests == []


async def test_a_certificate_of_the_sites_own_authority_is_accepted(
    run_service: ServiceRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority.load(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority.issue("agency").both)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    monkeypatch.setattr(webhooks, "_tls", webhooks._tls.__wrapped__)  # another test's authorities may be in its cache
    notify = Notify(await run_service(build, NotifySettings, webhook_allow_private=True))
    async with receiving(Receiver(), tls) as receiver:
        await notify.add_webhook(f"https://localhost:{receiver.port}/hook")
        await notify.service.publish(reinstated())
        await notify.until(1, channel="webhook", state="delivered")


@pytest.mark.parametrize(
    ("url", "error"),
    [("https://a..b/", "the host name could not be resolved"), ("https://[v1.fe80::a]/", "the URL is not valid")],
)
async def test_an_old_url_that_no_attempt_can_use_is_a_failed_attempt(notify: Notify, url: str, error: str) -> None:
    await notify.add_webhook("https://agency.example/")
    await notify.service.admin.execute("update webhook set url = $1", url)
    await notify.service.publish(reinstated())
    await notify.waits(error)


def self_signed(folder: Path, name: str) -> Path:
    """A self-signed certificate and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = SystemClock().now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    file.write_bytes(
        certificate.public_bytes(Encoding.PEM) + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return file
