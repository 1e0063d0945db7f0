"""`muster login`, `muster logout`, and `muster whoami`."""

import asyncio
import json
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.markup import escape

from muster_operator.failures import CommandFailed, Refused, TimedOut, Unreachable
from muster_operator.options import JsonOption
from muster_operator.output import Answer, in_utc, show, table
from muster_operator.session.cache import Session, SessionCache
from muster_operator.session.oauth import CLIENT_ID, ISSUER, Client, ProviderRefused, Tokens
from muster_operator.target import Target, on_target

# RFC 8628, 3.2 and 3.5: the default polling interval, and by how much `slow_down` increases it.
_INTERVAL_SECONDS = 5.0
_SLOWER_SECONDS = 5.0

_LOGIN_SECONDS = 600.0


def login(
    issuer: Annotated[str, typer.Option(envvar=ISSUER, help="The identity provider's issuer URL.")] = "",
    client_id: Annotated[
        str, typer.Option(envvar=CLIENT_ID, help="The client ID that the provider has registered for this command.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Log in to the identity provider, on any device with a browser. The session lasts until muster logout."""
    client = Client.of_environment(issuer, client_id)
    tokens = approved(client, time.sleep)
    SessionCache().save(Session.of(client, tokens))
    show(_answer("the session of muster login", tokens.access_token), as_json=as_json)


def logout() -> None:
    """Delete the session of muster login, and end it at the identity provider."""
    session = SessionCache().remove()
    if session is None:
        typer.echo("You were not logged in")
        return
    ended = False
    if session.refresh_token is not None:
        with suppress(CommandFailed):  # the local session is gone, whatever the provider says
            session.client.revoke(session.refresh_token)
            ended = True
    typer.echo("Logged out" if ended else f"Logged out locally; {session.issuer} was not notified")


@on_target()
async def whoami(target: Target) -> Answer:
    """Show who the token says you are. The command does not verify the token; the services do."""
    credential = target.credential()
    return _answer(credential.origin, await asyncio.to_thread(credential.token))


def approved(client: Client, wait: Callable[[float], None]) -> Tokens:
    """The tokens of a login, once a person has approved it in a browser (RFC 8628). Raises CommandFailed."""
    begun = client.begin_device_flow()
    complete = begun.get("verification_uri_complete")
    typer.echo(f"Open {begun['verification_uri']} and enter the code {begun['user_code']}", err=True)
    if isinstance(complete, str) and complete.isprintable():
        typer.echo(f"or open {complete}", err=True)
    interval = _seconds(begun, "interval", _INTERVAL_SECONDS)
    end = time.monotonic() + _seconds(begun, "expires_in", _LOGIN_SECONDS)
    while time.monotonic() + interval < end:
        wait(interval)
        try:
            return client.by_device_code(begun["device_code"])
        except (TimedOut, Unreachable):
            interval *= 2  # RFC 8628, 3.5
        except ProviderRefused as refused:
            interval += _more_seconds(refused)
    raise TimedOut("nobody approved the login in time: run muster login again")


def _more_seconds(refused: ProviderRefused) -> float:
    """Seconds to add to the polling interval. Raises Refused or TimedOut if polling must stop."""
    match refused.code:
        case "authorization_pending":
            return 0.0
        case "slow_down":
            return _SLOWER_SECONDS
        case "access_denied":
            raise Refused("the login was denied") from None
        case "expired_token":
            raise TimedOut("the code has expired: run muster login again") from None
    raise refused


def _seconds(reply: Mapping[str, Any], name: str, otherwise: float) -> float:
    value = reply.get(name)
    return float(value) if isinstance(value, int | float) and value > 0 else otherwise


def _answer(origin: str, token: str) -> Answer:
    """What a token says about its holder. Does not verify it: only the services have to trust it."""
    claims = _claims(token)
    expires = claims.get("exp")
    data = {
        "origin": origin,
        "issuer": claims.get("iss"),
        "subject": claims.get("sub"),
        "agency": claims.get("agency"),
        "scope": claims.get("scope"),
        "expires_at": in_utc(datetime.fromtimestamp(expires, UTC)) if isinstance(expires, int) else None,
    }
    rows = ((name.replace("_", " "), escape(_shown(value))) for name, value in data.items() if value is not None)
    return Answer(data, table(("", ""), rows))


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _claims(token: str) -> Mapping[str, Any]:
    """The claims of a JWT; empty for a token in any other format."""
    with suppress(ValueError, IndexError):
        payload = token.split(".")[1]
        claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        if isinstance(claims, dict):
            return claims
    return {}
