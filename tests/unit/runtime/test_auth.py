"""Tokens: which are accepted, and which are refused."""

import base64
import hmac
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, OKPKey, RSAKey

from muster_runtime.clock import SystemClock
from muster_runtime.http.identity import Unauthenticated
from muster_runtime.http.issuer import Issuer
from muster_runtime.http.keys import KeySource
from muster_runtime.http.roles import Roles
from muster_runtime.http.tokens import MAX_TOKEN_LENGTH, TokenVerifier
from tests.support.key_server import KeyServer
from tests.support.tokens import (
    AUDIENCE,
    ISSUER,
    at,
    claims,
    encoded,
    signed,
    signed_parts,
    verifier_of,
)


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer.load(tmp_path / "issuer.pem", issuer=ISSUER, audience=AUDIENCE)


@pytest.fixture
def verifier(issuer: Issuer, tmp_path: Path) -> TokenVerifier:
    return verifier_of(issuer.jwks(), tmp_path)


async def test_a_good_token_identifies_the_caller_and_their_scopes(issuer: Issuer, verifier: TokenVerifier) -> None:
    token = issuer.token(["sample:read", "sample:write"], agency="NASA", subject="ada")
    identity = await verifier.verify(f"Bearer {token}")
    assert identity.actor == "ada"
    assert identity.scopes == {"sample:read", "sample:write"}
    assert identity.agencies == {"NASA"}


@pytest.fixture
def key() -> OKPKey:
    return OKPKey.generate_key("Ed25519", auto_kid=True)


async def refused(token: str, key: OKPKey, directory: Path) -> None:
    """Assert that a good token signed with the key is accepted, and that this one is not."""
    verifier = verifier_of(KeySet([key]).as_dict(private=False), directory)
    assert (await verifier.verify(signed(key))).actor == "ada"
    with pytest.raises(Unauthenticated):
        await verifier.verify(token)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://elsewhere.example"},
        {"iss": f"{ISSUER}/"},
        {"iss": [ISSUER]},
        {"iss": None},
        {"aud": "another"},
        {"aud": None},
        {"aud": []},
        {"aud": ["another", "yet-another"]},
        {"aud": [AUDIENCE, 7]},
        {"aud": {AUDIENCE: True}},
        pytest.param({"exp": at(minutes=-2)}, id="over"),
        {"exp": None},
        {"exp": "tomorrow"},
        pytest.param({"exp": str(at(days=1))}, id="exp as a text"),
        {"exp": True},
        {"exp": [4102444800]},
        {"sub": " "},
        pytest.param({"sub": "a" * 256}, id="a long sub"),
        {"sub": "a\0b"},
        {"sub": "a\nb"},
        {"sub": "\ud800"},  # JSON can express it, and UTF-8 cannot encode it
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"filler": float("nan")},
        pytest.param({"nbf": at(hours=12)}, id="not yet"),
        {"nbf": "now"},
        pytest.param({"iat": at(hours=12)}, id="issued in the future"),
        {"iat": True},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"scope": ["sample:read"]},
        pytest.param({"nonce": "n-0S6_WzA2Mj"}, id="an ID token with a nonce"),
        pytest.param({"at_hash": "77QmUPtjPfzWtF2AnpK9RQ"}, id="an ID token with a hash"),
        {"agency": ""},
        {"agency": None},
        {"agency": 7},
        {"agency": "**"},
        {"agency": "NASA,DOE"},
        {"agency": []},
        {"agency": ["*"]},
        {"agency": ["NASA", "*"]},
        {"agency": ["NASA", "nasa"]},
        {"agency": ["NASA", None]},
        {"agency": {"NASA": True}},
    ],
    ids=str,
)
async def test_a_bad_claim_is_refused(changes: dict[str, Any], key: OKPKey, tmp_path: Path) -> None:
    await refused(signed(key, claims(**changes)), key, tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "EdDSA "},
        {"alg": ["Ed25519"]},
        {"alg": None},
        {"kid": 7},
        {"kid": ["a"]},
        {"kid": {"a": "b"}},
        {"typ": "logout+jwt"},
        {"typ": "secevent+jwt"},
        {"typ": "dpop+jwt"},
        {"typ": 7},
        {"crit": ["exp"], "exp": 1},
        {"crit": ["b64"], "b64": False},
        {"crit": []},
        {"zip": "DEF"},
    ],
    ids=str,
)
async def test_a_bad_header_is_refused_though_the_issuer_signed_it(
    header: dict[str, Any], key: OKPKey, tmp_path: Path
) -> None:
    await refused(signed(key, **header), key, tmp_path)


@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"])
async def test_the_types_of_access_tokens_are_accepted(typ: str | None, key: OKPKey, tmp_path: Path) -> None:
    """RFC 9068, 2.1, and RFC 7519, 5.1."""
    verifier = verifier_of(KeySet([key]).as_dict(private=False), tmp_path)
    assert (await verifier.verify(signed(key, typ=typ))).actor == "ada"


async def test_a_token_that_is_typed_as_an_access_token_may_have_a_nonce(key: OKPKey, tmp_path: Path) -> None:
    verifier = verifier_of(KeySet([key]).as_dict(private=False), tmp_path)
    assert (await verifier.verify(signed(key, claims(nonce="n"), typ="at+jwt"))).actor == "ada"


async def test_one_of_several_audiences_suffices(key: OKPKey, tmp_path: Path) -> None:
    verifier = verifier_of(KeySet([key]).as_dict(private=False), tmp_path)
    assert (await verifier.verify(signed(key, claims(aud=["another", AUDIENCE])))).actor == "ada"


@pytest.mark.parametrize(
    ("head", "body"),
    [
        pytest.param('{"alg":"none","alg":"Ed25519","kid":"KID"}', "CLAIMS", id="alg twice"),
        pytest.param('{"alg":"Ed25519","kid":"another","kid":"KID"}', "CLAIMS", id="kid twice"),
        pytest.param("HEAD", '{"agency":"*",CLAIMS', id="agency twice"),
        pytest.param("HEAD", '{"realm":{"roles":[],"roles":["admin"]},CLAIMS', id="a name twice, deeper"),
        pytest.param("HEAD", '{"exp":1e999,CLAIMS', id="exp that overflows"),
        pytest.param("HEAD", "[CLAIMS]", id="claims in a list"),
        pytest.param("HEAD", '"text"', id="claims as a text"),
        pytest.param("HEAD", "", id="no claims"),
        pytest.param("HEAD", "\ufeffCLAIMS", id="a byte order mark"),
        pytest.param("HEAD", "[" * 3000 + "]" * 3000, id="claims too deep"),
        pytest.param("[" * 3000 + "]" * 3000, "CLAIMS", id="header too deep"),
        pytest.param("HEAD", '{"exp":' + "9" * 5000 + ",CLAIMS", id="a number too long"),
    ],
)
async def test_json_that_can_be_read_in_two_ways_is_refused(head: str, body: str, key: OKPKey, tmp_path: Path) -> None:
    good = json.dumps(claims())
    head = head.replace("HEAD", '{"alg":"Ed25519","kid":"KID"}').replace("KID", str(key.kid))
    body = body.replace("CLAIMS", good.removeprefix("{") if body.startswith("{") else good)
    await refused(signed_parts(key, head.encode(), body.encode()), key, tmp_path)


async def test_a_token_within_a_token_is_refused(key: OKPKey, tmp_path: Path) -> None:
    """A nested token (RFC 7519, 5.2), and a JWE, which has five parts."""
    inner = signed(key).removeprefix("Bearer ")
    await refused(signed(key, inner.encode(), cty="JWT"), key, tmp_path)
    await refused(f"Bearer {'.'.join([*inner.split('.'), 'AA', 'AA'])}", key, tmp_path)


async def test_a_huge_token_is_refused_without_being_parsed(key: OKPKey, tmp_path: Path) -> None:
    await refused(signed(key, claims(filler="x" * MAX_TOKEN_LENGTH)), key, tmp_path)


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c"])
async def test_a_key_that_the_token_brings_is_neither_fetched_nor_used(
    member: str, key: OKPKey, tmp_path: Path
) -> None:
    """RFC 8725, 3.10: the attacker signs with their own key, and points to it."""
    attackers = OKPKey.generate_key("Ed25519", {"kid": str(key.kid)})
    with KeyServer(KeySet([attackers]).as_dict(private=False)) as server:
        brought: dict[str, Any] = {
            "jwk": attackers.as_dict(private=False),
            "jku": server.url,
            "x5u": server.url,
            "x5c": [base64.b64encode(attackers.as_der(private=False)).decode()],
        }
        await refused(signed(attackers, **{member: brought[member]}), key, tmp_path)
        assert server.asked == 0


async def test_another_key_with_the_same_kid_is_refused(key: OKPKey, tmp_path: Path) -> None:
    await refused(signed(OKPKey.generate_key("Ed25519", {"kid": str(key.kid)})), key, tmp_path)
    await refused(signed(OKPKey.generate_key("Ed25519", {"kid": str(key.kid)}), kid=None), key, tmp_path)


async def test_a_null_agency_is_not_an_operator(tmp_path: Path) -> None:
    key = OKPKey.generate_key("Ed25519", auto_kid=True)
    verifier = verifier_of(KeySet([key]).as_dict(private=False), tmp_path)
    token = jwt.encode({"alg": "Ed25519", "kid": key.kid}, claims() | {"agency": None}, key, algorithms=["Ed25519"])
    with pytest.raises(Unauthenticated):
        await verifier.verify(f"Bearer {token}")


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "HS256"])
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
async def test_a_header_without_a_valid_token_is_refused(verifier: TokenVerifier, header: str | None) -> None:
    with pytest.raises(Unauthenticated):
        await verifier.verify(header)


def test_the_issuers_key_file_is_private_to_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "issuer.pem"
    first = Issuer.load(path, issuer=ISSUER)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Issuer.load(path, issuer=ISSUER).jwks() == first.jwks()
    assert "d" not in first.jwks()["keys"][0]


def test_a_verifier_needs_an_issuer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="MUSTER_OIDC_ISSUER"):
        TokenVerifier(
            KeySource("no-keys.json"), issuer="", audience=AUDIENCE, clock=SystemClock(), roles=Roles.load("")
        )
