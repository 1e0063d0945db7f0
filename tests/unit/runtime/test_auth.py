"""Tokens: what is let in, and what is refused."""

import base64
import hmac
import json
import stat
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey

from muster_runtime.clock import SystemClock
from muster_runtime.errors import NotFound
from muster_runtime.http.auth import TokenVerifier, Unauthenticated
from muster_runtime.http.issuer import Issuer
from muster_runtime.http.keys import KeySource

ISSUER = "https://identity.example.gov"
AUDIENCE = "muster"
NOW = SystemClock().now()


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer.load(tmp_path / "issuer.pem", issuer=ISSUER, audience=AUDIENCE)


@pytest.fixture
def verifier(issuer: Issuer, tmp_path: Path) -> TokenVerifier:
    return verifier_of(issuer.jwks(), tmp_path)


def verifier_of(jwks: object, directory: Path) -> TokenVerifier:
    file = directory / "jwks.json"
    file.write_text(json.dumps(jwks))
    return TokenVerifier(KeySource(str(file)), issuer=ISSUER, audience=AUDIENCE, clock=SystemClock())


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims, changed; a value of None leaves the claim out."""
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ada",
        "exp": int((NOW + timedelta(days=1)).timestamp()),
        "scope": "sample:read sample:write",
        "agency": "NASA",
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


async def test_a_good_token_says_who_asks_and_what_they_may(issuer: Issuer, verifier: TokenVerifier) -> None:
    token = issuer.token(["sample:read", "sample:write"], agency="NASA", subject="ada")
    identity = await verifier.verify(f"Bearer {token}")
    assert identity.actor == "ada"
    assert identity.scopes == {"sample:read", "sample:write"}
    assert identity.agency == "NASA"


async def test_a_token_for_all_agencies_is_an_operators(issuer: Issuer, verifier: TokenVerifier) -> None:
    identity = await verifier.verify(f"bearer {issuer.token([], agency='*')}")
    assert identity.agency == "*"
    identity.admit("NASA")
    identity.admit("*")


@pytest.mark.parametrize("agency_id", ["DOE", "*", "NASA,DOE", "", "nasa", "NASA\n", "\0"])
async def test_another_agency_is_not_found(issuer: Issuer, verifier: TokenVerifier, agency_id: str) -> None:
    identity = await verifier.verify(f"Bearer {issuer.token([], agency='NASA')}")
    identity.admit("NASA")
    with pytest.raises(NotFound):
        identity.admit(agency_id)


async def test_an_operator_cannot_name_two_agencies_as_one(issuer: Issuer, verifier: TokenVerifier) -> None:
    identity = await verifier.verify(f"Bearer {issuer.token([], agency='*')}")
    with pytest.raises(NotFound):
        identity.admit("NASA,DOE")


@pytest.mark.parametrize(
    "make_key",
    [
        lambda: (RSAKey.generate_key(2048, auto_kid=True), "RS256"),
        lambda: (RSAKey.generate_key(2048, auto_kid=True), "PS256"),
        lambda: (ECKey.generate_key("P-256", auto_kid=True), "ES256"),
        lambda: (OKPKey.generate_key("Ed25519", auto_kid=True), "EdDSA"),
    ],
    ids=["RS256", "PS256", "ES256", "EdDSA"],
)
async def test_every_usual_signature_is_understood(make_key: Callable[[], tuple[Any, str]], tmp_path: Path) -> None:
    key, algorithm = make_key()
    verifier = verifier_of(KeySet([key]).as_dict(private=False), tmp_path)
    token = jwt.encode({"alg": algorithm, "kid": key.kid}, claims(), key, algorithms=[algorithm])
    assert (await verifier.verify(f"Bearer {token}")).actor == "ada"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://elsewhere.example"},
        {"iss": None},
        {"aud": "another"},
        {"aud": None},
        {"aud": []},
        pytest.param({"exp": int((NOW - timedelta(minutes=2)).timestamp())}, id="over"),
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": True},
        pytest.param({"nbf": int((NOW + timedelta(hours=12)).timestamp())}, id="not yet"),
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"scope": ["sample:read"]},
        {"agency": ""},
        {"agency": None},
        {"agency": "**"},
        {"agency": ["NASA"]},
        {"agency": "NASA,DOE"},
    ],
    ids=str,
)
async def test_a_bad_claim_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    key = OKPKey.generate_key("Ed25519", auto_kid=True)
    verifier = verifier_of(KeySet([key]).as_dict(private=False), tmp_path)
    header = {"alg": "Ed25519", "kid": key.kid}
    assert await verifier.verify(f"Bearer {jwt.encode(header, claims(), key, algorithms=['Ed25519'])}")
    with pytest.raises(Unauthenticated):
        await verifier.verify(f"Bearer {jwt.encode(header, claims(**changes), key, algorithms=['Ed25519'])}")


async def test_a_null_agency_is_not_an_operator(tmp_path: Path) -> None:
    key = OKPKey.generate_key("Ed25519", auto_kid=True)
    verifier = verifier_of(KeySet([key]).as_dict(private=False), tmp_path)
    token = jwt.encode({"alg": "Ed25519", "kid": key.kid}, claims() | {"agency": None}, key, algorithms=["Ed25519"])
    with pytest.raises(Unauthenticated):
        await verifier.verify(f"Bearer {token}")


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS256"])
async def test_an_unsigned_token_is_refused(issuer: Issuer, verifier: TokenVerifier, algorithm: str) -> None:
    kid = issuer.jwks()["keys"][0]["kid"]
    with pytest.raises(Unauthenticated):
        await verifier.verify(f"Bearer {encoded({'alg': algorithm, 'kid': kid})}.{encoded(claims())}.")


async def test_a_public_key_is_no_shared_secret(tmp_path: Path) -> None:
    """RFC 8725, 2.1: the public key used as an HMAC secret."""
    key = RSAKey.generate_key(2048, auto_kid=True)
    verifier = verifier_of(KeySet([key]).as_dict(private=False), tmp_path)
    signed = f"{encoded({'alg': 'HS256', 'kid': key.kid})}.{encoded(claims())}"
    mac = hmac.digest(key.as_pem(private=False), signed.encode(), "sha256")
    forged = f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
    with pytest.raises(Unauthenticated):
        await verifier.verify(f"Bearer {forged}")


async def test_a_symmetric_key_among_the_issuers_keys_is_of_no_use(tmp_path: Path) -> None:
    secret = OctKey.generate_key(256, auto_kid=True)
    verifier = verifier_of({"keys": [secret.as_dict(private=True)]}, tmp_path)
    token = jwt.encode({"alg": "HS256", "kid": secret.kid}, claims(), secret, algorithms=["HS256"])
    with pytest.raises(Unauthenticated):
        await verifier.verify(f"Bearer {token}")


async def test_the_key_of_another_issuer_is_refused(verifier: TokenVerifier, tmp_path: Path) -> None:
    stranger = Issuer.load(tmp_path / "stranger.pem", issuer=ISSUER, audience=AUDIENCE)
    with pytest.raises(Unauthenticated):
        await verifier.verify(f"Bearer {stranger.token(['sample:read'], agency='*')}")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "Bearer a.b.c",
        "Bearer ..",
        "Bearer " + "x" * 9000,
        "Bearer WyJhbGciXQ.e30.AA",
    ],
)
async def test_what_is_no_token_is_refused(verifier: TokenVerifier, header: str | None) -> None:
    with pytest.raises(Unauthenticated):
        await verifier.verify(header)


@given(place=st.integers(0, 1000), letter=st.characters(exclude_categories=["Cs"]))
@settings(max_examples=200, deadline=None)
async def test_whatever_is_changed_in_a_token_is_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, letter: str
) -> None:
    directory = tmp_path_factory.mktemp("keys")
    issuer = Issuer.load(directory / "issuer.pem", issuer=ISSUER, audience=AUDIENCE)
    verifier = verifier_of(issuer.jwks(), directory)
    token = issuer.token(["sample:read"], agency="NASA")
    place %= len(token) - 1  # some bits of the last letter mean nothing
    assume(letter != token[place])
    with pytest.raises(Unauthenticated):
        await verifier.verify(f"Bearer {token[:place]}{letter}{token[place + 1 :]}")


@given(
    header=st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "jwk", "jku", "b64"]),
        st.none() | st.text() | st.integers() | st.lists(st.text()),
    ),
    payload=st.binary(),
    signature=st.binary(),
)
@settings(max_examples=200, deadline=None)
async def test_nonsense_in_a_tokens_header_is_refused(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any], payload: bytes, signature: bytes
) -> None:
    directory = tmp_path_factory.mktemp("keys")
    issuer = Issuer.load(directory / "issuer.pem", issuer=ISSUER, audience=AUDIENCE)
    parts = (base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (payload, signature))
    with pytest.raises(Unauthenticated):
        await verifier_of(issuer.jwks(), directory).verify("Bearer " + ".".join([encoded(header), *parts]))


def test_the_issuers_key_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "issuer.pem"
    first = Issuer.load(path, issuer=ISSUER)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Issuer.load(path, issuer=ISSUER).jwks() == first.jwks()
    assert "d" not in first.jwks()["keys"][0]


def test_a_verifier_without_issuer_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="MUSTER_OIDC_ISSUER"):
        TokenVerifier(KeySource(""), issuer="", audience=AUDIENCE, clock=SystemClock())
