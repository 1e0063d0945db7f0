"""The program's first year, and its proof, on a release of the bundle's chart that provisions its own servers."""

import os
import re
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from infra.images.bundle import bundle
from muster_local.demo.cast import cast
from muster_local.demo.proof import prove
from muster_local.demo.year import play_year
from muster_local.receiver import Receiver
from tests.cluster.conftest import Ready
from tests.cluster.figures import record
from tests.cluster.kube import MUSTER, CommandFailed, Kube, Thing
from tests.cluster.release import MACHINE, SMALL_REQUEST, Release, values
from tests.cluster.runbooks import PAGES, TEST, Desk
from tests.cluster.servers import Installed
from tests.support.eventually import eventually

NAMESPACE, PREFIX = "muster-year", "year."

# A Kafka user has the rights of only one release, so the year has its own users.
USER, PRINCIPAL = "year-{service}", "User:year-{name}"

SEATS = 2_000

# The chart page's commands, for another namespace, without their test, which would add an agency unknown to the year.
INSTALL, UNINSTALL = PAGES["chart/README.md"]
_INSTALL = re.sub(r"(namespace) muster\b", rf"\1 {NAMESPACE}", INSTALL.replace(TEST, ""))


@pytest.mark.comes_last  # the release is gone then, and the year has the machine to itself
async def test_an_uninstall_leaves_nothing_but_the_operators_own(kube: Kube, installed: Ready, tmp_path: Path) -> None:
    kinds = await kube.kubectl("api-resources", "--namespaced", "--verbs=list", "--output=name")
    listed = ",".join(kind for kind in kinds.split() if not kind.startswith("events"))

    async def found(selector: str = "") -> set[str]:
        return set((await kube.kubectl("-n", MUSTER, "get", listed, "-l", selector, "--output=name")).split())

    before = await found()
    releases = await found("owner=helm") | await found("app.kubernetes.io/managed-by=Helm")
    assert {"deployment.apps", "secret"} <= {name.partition("/")[0] for name in releases}
    await Desk(tmp_path, values(installed.servers)).run(UNINSTALL)

    async def only_the_operators_own_is_left() -> bool:
        left = await found()
        own = {name for name in before - releases if name.startswith(("secret/", "configmap/", "serviceaccount/"))}
        assert left == own
        return True

    await eventually(only_the_operators_own_is_left, timeout=30)


@pytest.mark.comes_last  # its Job sets the passwords of the roles, which another test has replaced
async def test_a_year_is_played_and_every_line_of_the_proof_is_green(
    kube: Kube, installed: Ready, tmp_path: Path
) -> None:
    servers, stack = installed.servers, Installed(installed.servers, NAMESPACE, PREFIX)
    accesses = servers.accesses(NAMESPACE)
    administrator = servers.secret_of_administrator(accesses, NAMESPACE)
    await servers.add_users(USER)
    chosen = values(
        servers,
        profile="small",
        roles={"all": SMALL_REQUEST},
        environment="sandbox",
        kafka={"bootstrap": servers.bootstrap, "topicPrefix": PREFIX},
        trustedCA={"secret": "muster-ca", "https": False},
        provisioning={"mode": "hook", "database": NAMESPACE},
        preflight={"mode": "hook"},
        operations={"settings": {"MUSTER_KAFKA_PRINCIPAL": PRINCIPAL}},
        settings={
            "MUSTER_HTTP_TOKEN_RATE": "1000000",
            "MUSTER_HTTP_AGENCY_RATE": "1000000",
            "MUSTER_PERSONAL_READS_PER_MINUTE": "1000000",
            "MUSTER_WEBHOOK_ALLOW_PRIVATE": "true",
            "MUSTER_DELIVERY_RETENTION_DAYS": "400",
        },
    )
    # Webhooks are received at a private address, which the network policies block by themselves.
    chosen["networkPolicy"] |= {"egress": [{"to": [{"ipBlock": {"cidr": f"{MACHINE}/32"}}]}]}
    desk = Desk(_unpacked(bundle(), tmp_path), chosen)
    _write_secrets(desk.folder, [*servers.secrets_of_services(accesses, NAMESPACE, USER), administrator])
    _clear(servers.mail)
    await kube.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")  # of a run before
    started = time.monotonic()
    release = Release(kube, NAMESPACE)
    try:
        await desk.run(_INSTALL)
    except CommandFailed:
        print(await kube.troubles(NAMESPACE))
        raise
    ready = time.monotonic() - started
    receiver = await Receiver.start(tmp_path / "receiver", os.getpid(), MACHINE)
    try:
        lines = prove(await play_year(stack, receiver, cast(SEATS)))
    finally:
        await receiver.stop()
        await release.uninstall()
        _clear(servers.mail)
    record("the demonstration's year", f"install {ready:.0f} s, all {time.monotonic() - started:.0f} s")
    assert [f"{line.claim}: {line.detail}" for line in lines if not line.ok] == []


def _unpacked(archive: Path, folder: Path) -> Path:
    """The bundle's folder, without the images, which the nodes have."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, [each for each in tar if "/images/" not in each.name], filter="data")
    (made,) = folder.iterdir()
    return made


def _write_secrets(folder: Path, objects: Iterable[Thing]) -> None:
    """Write `secrets/` as the chart's page describes it; the authority's certificate becomes one, too."""
    for each in objects:
        data = each["data"] if each["kind"] == "ConfigMap" else each["stringData"]
        made = folder / "secrets" / each["metadata"]["name"].removeprefix("muster-")
        made.mkdir(parents=True)
        for key, content in data.items():
            (made / key).write_text(content, "utf-8")


def _clear(mail: Path) -> None:
    """Empty the mail sink, since a release's proof would count all its e-mails as its own."""
    for each in mail.glob("*.eml"):
        each.unlink()
