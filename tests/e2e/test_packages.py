"""Each package installed from wheels only, with their declared dependencies, and without this source tree."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from muster_contracts import SERVICES, ClockMoved, topics
from muster_local.servers import kafka_at
from muster_operator.databases.provisioning import Access, drop, password_of, provision
from muster_operator.topics import create_topics, delete_topics
from tests.support.eventually import eventually
from tests.support.services import ISSUER, TokenIssuer

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "muster-contracts": ROOT / "contracts",
    "muster-entitlements-client": ROOT / "contracts/client",
    "muster-runtime": ROOT / "services/runtime",
    **{f"muster-{service}": ROOT / "services" / service for service in SERVICES},
    "muster-operator": ROOT / "infra/operator",
    "muster-local": ROOT / "infra/local",
}

# For each service, a list that is empty at first, and that its read scope opens.
READS = {
    "enrollment": "/v1/agencies",
    "entitlements": "/v1/agencies/NASA/seats",
    "billing": "/v1/agencies/NASA/terms",
    "notify": "/v1/agencies/NASA/webhooks",
}

# Long enough for a busy machine.
PATIENCE = 90

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel of every package."""
    folder = tmp_path_factory.mktemp("wheels")
    builds = [
        subprocess.Popen(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
            cwd=source,
            stdout=subprocess.DEVNULL,
        )
        for source in FOLDERS.values()
    ]
    assert [build.wait() for build in builds] == [0] * len(FOLDERS)
    return folder


def install(wheels: Path, package: str, folder: Path) -> Path:
    """The Python of a new environment with the package and its declared dependencies; pip finds no conflict."""
    uv = [sys.executable, "-m", "uv", "--quiet"]
    python = folder / "bin/python"
    subprocess.run([*uv, "venv", "--python", sys.executable, str(folder)], check=True)
    # The locked versions, which the setup has already fetched.
    pinned = ["--find-links", str(wheels), "--constraint", str(ROOT / "requirements.lock")]
    subprocess.run([*uv, "pip", "install", "--python", str(python), *pinned, package], check=True)
    subprocess.run([*uv, "pip", "check", "--python", str(python)], check=True)
    return python


def import_everything(python: Path, package: str) -> None:
    """Import each module of a package, outside this source tree."""
    command = [str(python), "-I", "-c", IMPORT_EVERYTHING, module_of(package)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def project(package: str) -> dict[str, Any]:
    """The [project] table of a package."""
    described: dict[str, Any] = tomllib.loads((FOLDERS[package] / "pyproject.toml").read_text("utf-8"))["project"]
    return described


def module_of(package: str) -> str:
    """The name under which a package is imported."""
    return package.replace("-", "_")


def version_of(package: str) -> str:
    """Its version, which the contracts store in their code."""
    if "version" in (described := project(package)):
        return str(described["version"])
    text = (FOLDERS[package] / module_of(package) / "__init__.py").read_text("utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    assert found is not None
    return found[1]


def declared(package: str) -> set[str]:
    """The distributions that a package declares."""
    described = project(package)
    every = [*described["dependencies"], *chain.from_iterable(described.get("optional-dependencies", {}).values())]
    return {re.split(r"[\[<>=]", each)[0] for each in every}


def imported(package: str) -> Iterator[str]:
    """The distributions that a package's code imports, except itself; of several for one name, a declared one."""
    installed, known = packages_distributions(), declared(package)
    for file in (FOLDERS[package] / module_of(package)).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for top in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {module_of(package)}:
                ours = top.replace("_", "-")
                names = [ours] if ours in FOLDERS else [each.lower().replace("_", "-") for each in installed[top]]
                yield next((name for name in names if name in known), names[0])


@pytest.mark.parametrize("package", FOLDERS)
def test_a_package_declares_everything_that_it_imports(package: str) -> None:
    assert set(imported(package)) - declared(package) == set()


@pytest.mark.parametrize("package", FOLDERS)
def test_a_package_pins_its_siblings_to_their_versions(package: str) -> None:
    siblings = [each for each in project(package)["dependencies"] if each.startswith("muster-")]
    assert siblings == [f"{name}=={version_of(name)}" for name in (re.split("==", each)[0] for each in siblings)]


@pytest.mark.parametrize("package", ["muster-runtime", "muster-entitlements-client"])
def test_every_module_of_a_librarys_wheel_can_be_imported(package: str, wheels: Path, tmp_path: Path) -> None:
    import_everything(install(wheels, package, tmp_path / "installed"), package)


def muster(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an environment's command, outside this source tree."""
    command = [str(python.with_name("muster")), *arguments]
    environment = {"PATH": os.environ["PATH"]}
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)


def test_the_operators_command_works_without_the_sandbox(wheels: Path, tmp_path: Path) -> None:
    python = install(wheels, "muster-operator", tmp_path / "installed")
    import_everything(python, "muster-operator")
    for command in (["--help"], ["topics", "plan", "--help"]):
        helped = muster(python, *command)
        assert helped.returncode == 0, helped.stderr
    assert "Sandbox" not in muster(python, "--help").stdout
    assert muster(python, "--version").stdout.startswith(f"muster {version_of('muster-operator')} ")
    listed = muster(python, "parked", "list")
    assert listed.returncode == 2
    assert listed.stderr == "muster: MUSTER_<SERVICE>_URL is not set\n"
    rebuilt = muster(python, "rebuild", "notify.directory")
    assert rebuilt.returncode == 2
    where = "run python -m muster_notify rebuild directory where it is"
    assert rebuilt.stderr == f"muster: muster-notify is not installed here: {where}\n"


def test_the_sandbox_installed_from_wheels_adds_its_commands(wheels: Path, tmp_path: Path) -> None:
    python = install(wheels, "muster-local", tmp_path / "installed")
    import_everything(python, "muster-local")
    helped = muster(python, "--help")
    assert helped.returncode == 0, helped.stderr
    assert {"parked", "up"} <= set(helped.stdout.split())

    (home := tmp_path / "home").mkdir(mode=0o700)
    (home / "state.json").symlink_to(tmp_path / "elsewhere")
    refused = muster(python, "status", f"--home={home}")
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert refused.stderr.startswith(f"muster: {home}/state.json is a symbolic link")
    assert len(refused.stderr.splitlines()) == 1


@pytest.fixture
async def unmigrated(postgres: str, topic_prefix: str) -> Any:
    """`await unmigrated("billing")`: a database with a service's roles and empty schema."""
    database = topic_prefix.rstrip(".")
    yield lambda service: provision(postgres, database, service, password_of(postgres))
    await drop(postgres, database)


@pytest.fixture
async def all_topics(kafka_bootstrap: str, topic_prefix: str) -> Any:
    """Every topic, under this test's prefix."""
    made = [topic_prefix + name for name in topics()]
    await create_topics(kafka_at(kafka_bootstrap), topic_prefix, topics().values())
    yield ClockMoved.topic
    await delete_topics(kafka_at(kafka_bootstrap), made)


@pytest.mark.usefixtures("all_topics")
@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_installed_from_wheels_migrates_and_serves(
    service: str,
    wheels: Path,
    tmp_path: Path,
    unmigrated: Callable[[str], Awaitable[Access]],
    kafka_bootstrap: str,
    topic_prefix: str,
    tokens: TokenIssuer,
    unused_tcp_port: int,
) -> None:
    python = install(wheels, f"muster-{service}", tmp_path / "installed")
    import_everything(python, f"muster-{service}")
    access = await unmigrated(service)
    environment = {
        "PATH": os.environ["PATH"],
        "MUSTER_ENVIRONMENT": "sandbox",
        "MUSTER_POSTGRES_OWNER_DSN": access.owner_dsn,
        "MUSTER_POSTGRES_API_DSN": access.api_dsn,
        "MUSTER_POSTGRES_WORKER_DSN": access.worker_dsn,
        "MUSTER_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "MUSTER_TOPIC_PREFIX": topic_prefix,
        "MUSTER_HTTP_PORT": str(unused_tcp_port),
        "MUSTER_OIDC_ISSUER": ISSUER,
        "MUSTER_OIDC_JWKS": str(tokens.jwks),
        "MUSTER_SUBJECT_KEY": "0" * 64,
        "MUSTER_SECRET_KEY": "MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA=",
        "MUSTER_SMTP_HOST": "127.0.0.1",
    }
    command = [str(python), "-I", "-m", f"muster_{service}"]
    migrated = subprocess.run(
        [*command, "migrate"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert migrated.returncode == 0, migrated.stderr

    files = [file for source in ("runtime", service) for file in (ROOT / "services" / source).rglob("*.sql")]
    admin = await asyncpg.connect(access.admin_dsn)
    applied = await admin.fetch(f"select version from {service}.schema_migrations")
    await admin.close()
    assert {row["version"] for row in applied} == {file.name.partition("_")[0] for file in files}

    log = tmp_path / "log"
    with log.open("wb") as output:
        served = subprocess.Popen(
            [*command, "serve"], env=environment, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{unused_tcp_port}", timeout=PATIENCE) as client:

            async def ready() -> bool:
                assert served.poll() is None, log.read_text("utf-8")
                try:
                    answer = await client.get("/health/ready")
                except httpx.TransportError:
                    return False
                assert answer.status_code == 200, answer.text
                return True

            await eventually(ready, timeout=PATIENCE)
            described = json.loads((await client.get("/openapi.json")).text)
            assert described["openapi"].startswith("3.1")
            headers = {"Authorization": f"Bearer {tokens.token(f'{service}:read')}"}
            assert (await client.get(READS[service])).status_code == 401
            read = await client.get(READS[service], headers=headers)
            assert read.status_code == 200, read.text
            assert read.json()["items"] == []
    finally:
        served.terminate()
        assert served.wait(30) == 0

    (migrations,) = tmp_path.glob(f"installed/lib/*/site-packages/muster_{service}/migrations")
    shutil.rmtree(migrations)
    incomplete = subprocess.run(
        [*command, "migrate"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert incomplete.returncode == 2
    assert incomplete.stderr == f"{migrations} has no migrations: reinstall the package\n"
