"""The sandbox's identity provider: the certified `oidc-provider`, run by Node.js from its wheel."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from joserfc.jwk import ECKey

from muster_local.child import Program
from muster_local.home import PROVIDER
from muster_local.node import NODE, installed
from muster_operator.private import open_private

_DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass(frozen=True)
class Lifetimes:
    """Lifetimes of the provider's tokens and codes, and the device flow's polling `interval`, in seconds."""

    access_token: int = 300
    refresh_token: int = 86_400
    device_code: int = 600
    interval: float = 5.0


@dataclass(frozen=True)
class Account:
    """A person who may log in. `claims` go into the access tokens, such as `agency` and `roles`."""

    password: str
    claims: Mapping[str, Any]


@dataclass(frozen=True)
class Automation:
    """A confidential client for the client credentials grant. It may request the scopes in `scope`."""

    secret: str
    claims: Mapping[str, Any]
    scope: str = ""


def write_configuration(
    path: Path,
    *,
    login_clients: Sequence[str],
    accounts: Mapping[str, Account],
    automations: Mapping[str, Automation] = {},
) -> None:
    """Write the provider's configuration with a new signing key, mode 0600.

    `login_clients` are the IDs of public clients for the device flow; `automations`, by client ID, are confidential.
    """
    key = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)
    configuration = {
        "jwks": {"keys": [key.as_dict(private=True)]},
        "clients": [
            *(_client(name, [_DEVICE_CODE, "refresh_token"], "none") for name in login_clients),
            *(
                _client(name, ["client_credentials"], "client_secret_basic") | {"client_secret": automation.secret}
                for name, automation in automations.items()
            ),
        ],
        "accounts": {
            name: {"password": account.password, "claims": account.claims} for name, account in accounts.items()
        },
        "client_claims": {name: automation.claims for name, automation in automations.items()},
        "client_scopes": {name: automation.scope for name, automation in automations.items()},
    }
    with open(path, "w", encoding="utf-8", opener=open_private) as file:
        json.dump(configuration, file)


def _client(client_id: str, grants: list[str], authentication: str) -> dict[str, Any]:
    return {
        "client_id": client_id,
        "grant_types": grants,
        "token_endpoint_auth_method": authentication,
        "redirect_uris": [],
        "response_types": [],
    }


def provider_program(configuration: Path, port: int, lifetimes: Lifetimes = Lifetimes()) -> Program:
    """The provider, on loopback. Its address is its issuer; services discover its keys from there.

    The first call on a machine installs its packages into the user's cache folder.
    """
    issuer = f"http://127.0.0.1:{port}"
    with as_file(files("muster_local") / "data" / "oidc") as project:
        script = installed(project) / "provider.mjs"
    return Program(
        name=PROVIDER,
        command=[str(NODE), str(script)],
        address=issuer,
        environment={
            "PROVIDER_ISSUER": issuer,
            "PROVIDER_PORT": str(port),
            "PROVIDER_FILE": str(configuration),
            "PROVIDER_ACCESS_TOKEN": str(lifetimes.access_token),
            "PROVIDER_REFRESH_TOKEN": str(lifetimes.refresh_token),
            "PROVIDER_DEVICE_CODE": str(lifetimes.device_code),
            "PROVIDER_INTERVAL": str(lifetimes.interval),
        },
    )
