"""The sandbox's identity provider for tests, and a person who logs in with a browser."""

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from muster_local.oidc import Account, Automation, Lifetimes, provider_program, write_configuration

LOGIN_CLIENT = "muster-cli"
OPERATOR, PASSWORD = "ada", "a long password"
AUTOMATION, SECRET = "payroll", "a secret: with / and % and +"


@dataclass(frozen=True)
class IdentityProvider:
    """A running provider. Ada is an operator of the program; the automation is an auditor of two agencies."""

    issuer: str

    def approve(self, address: str, *passwords: str) -> list[str]:
        """Open a login's URL, confirm its code, and log in as Ada; return the page after each password."""
        with httpx.Client(follow_redirects=True) as browser:
            page = self._confirm(browser, address, {"confirm": "yes"})
            return [browser.post(page.url, data={"name": OPERATOR, "password": each}).text for each in passwords]

    def deny(self, address: str) -> None:
        """Open a login's URL and reject its code."""
        with httpx.Client(follow_redirects=True) as browser:
            self._confirm(browser, address, {"abort": "yes"})

    def _confirm(self, browser: httpx.Client, address: str, answer: dict[str, str]) -> httpx.Response:
        page = browser.get(address)
        for more in ({}, answer):
            hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text))
            hidden.pop("confirm", None)
            page = browser.post(f"{self.issuer}/device", data=hidden | more)
        return page


@contextmanager
def identity_provider(folder: Path, lifetimes: Lifetimes) -> Iterator[IdentityProvider]:
    """Run a provider until the block ends."""
    configuration = folder / "provider.json"
    write_configuration(
        configuration,
        login_clients=[LOGIN_CLIENT],
        accounts={OPERATOR: Account(PASSWORD, {"agency": "*", "roles": ["muster-operator"]})},
        automations={AUTOMATION: Automation(SECRET, {"agency": ["NASA", "DOE"], "roles": ["muster-auditor"]})},
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = provider_program(configuration, port, lifetimes)
    with subprocess.Popen(
        program.command, env=dict(program.environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("listening"):
                break
        else:
            raise AssertionError("".join(said))
        try:
            yield IdentityProvider(program.address)
        finally:
            process.terminate()
