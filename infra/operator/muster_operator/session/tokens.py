"""Chooses a command's token: the given one, the client's own, the stack's, or the session's."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from muster_operator.failures import BadInput
from muster_operator.session.cache import SessionCache
from muster_operator.session.oauth import CLIENT_ID, ISSUER, SECRET, SECRET_FILE, Client, Tokens

# Returns a token for the next request. A long command calls it again, because a token may live only for minutes.
TokenSource = Callable[[], str]


@dataclass(frozen=True)
class Credential:
    """A source of tokens; `origin` describes it in messages."""

    origin: str
    token: TokenSource


def client_tokens(client: Client) -> TokenSource:
    """Tokens for the client itself; each is reused until it is about to expire."""
    issued: list[Tokens] = []

    def token() -> str:
        if not issued or not issued[-1].are_fresh:
            issued[:] = [client.by_credentials()]
        return issued[-1].access_token

    return token


def find_credential(given: str, issue: TokenSource | None) -> Credential:
    """The credential that takes precedence; `issue` is the running stack's. Raises BadInput if there is none."""
    if given:
        return Credential("--token or MUSTER_TOKEN", lambda: given)
    if os.environ.get(SECRET) or os.environ.get(SECRET_FILE):
        return Credential(f"the client credentials of {CLIENT_ID}", client_tokens(Client.of_environment()))
    if issue is not None:
        return Credential("the stack's issuer", issue)
    cache = SessionCache()
    session = cache.find()
    if session is None:
        raise BadInput("a token is needed: run muster login, pass --token, or set MUSTER_TOKEN")
    issuer = os.environ.get(ISSUER)
    if issuer and issuer != session.issuer:
        raise BadInput(f"the session is from {session.issuer}, but {ISSUER} is {issuer}: run muster login")
    return Credential("the session of muster login", cache.token)
