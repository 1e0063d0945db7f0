"""The program's first year on a release that provisions its own servers, and the proof that its books balance."""

import os
import time
from pathlib import Path

from muster_local.demo.cast import cast
from muster_local.demo.proof import prove
from muster_local.demo.year import play_year
from muster_local.receiver import Receiver
from tests.cluster.conftest import Ready
from tests.cluster.figures import record
from tests.cluster.kube import Kube
from tests.cluster.release import Release, namespace, values
from tests.cluster.servers import Installed

NAMESPACE, PREFIX = "muster-year", "year."

# A user of Kafka has the rights of one release: more would be too many.
USER, PRINCIPAL = "year-{service}", "User:year-{name}"

HOST = "10.243.0.1"
SEATS = 2_000


async def test_a_year_is_played_and_every_line_of_the_proof_is_green(
    kube: Kube, installed: Ready, tmp_path: Path
) -> None:
    servers, stack = installed.servers, Installed(installed.servers, NAMESPACE, PREFIX)
    accesses = servers.accesses(NAMESPACE)
    administrator = servers.secret_of_administrator(accesses, NAMESPACE)
    await servers.add_users(USER)
    await kube.apply([namespace(NAMESPACE), *servers.secrets_of_services(accesses, NAMESPACE, USER), administrator])
    _clear(servers.mail)
    started = time.monotonic()
    release = Release(kube, NAMESPACE)
    await release.install(
        values(
            servers,
            profile="small",
            environment="sandbox",
            kafka={"bootstrap": servers.bootstrap, "topicPrefix": PREFIX},
            provisioning={"mode": "hook", "database": NAMESPACE},
            preflight={"mode": "hook"},
            operations={"settings": {"MUSTER_KAFKA_PRINCIPAL": PRINCIPAL}},
            networkPolicy={"enabled": False},  # the receiver is on a private address
            settings={
                "MUSTER_HTTP_TOKEN_RATE": "1000000",
                "MUSTER_HTTP_AGENCY_RATE": "1000000",
                "MUSTER_WEBHOOK_ALLOW_PRIVATE": "true",
                "MUSTER_DELIVERY_RETENTION_DAYS": "400",
            },
        )
    )
    ready = time.monotonic() - started
    receiver = await Receiver.start(tmp_path / "receiver", os.getpid(), HOST)
    try:
        lines = prove(await play_year(stack, receiver, cast(SEATS)))
    finally:
        await receiver.stop()
        await release.uninstall()
        _clear(servers.mail)
    record("the demonstration's year", f"install {ready:.0f} s, all {time.monotonic() - started:.0f} s")
    assert [f"{line.claim}: {line.detail}" for line in lines if not line.ok] == []


def _clear(mail: Path) -> None:
    """Empty the mail sink, whose e-mails a release's proof takes for its own."""
    for each in mail.glob("*.eml"):
        each.unlink()
