"""Which of an issuer's published keys are used, and how the issuer's metadata leads to its keys."""

from collections.abc import Callable
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey

from muster_runtime.errors import RetryableError
from muster_runtime.http.identity import Unauthenticated
from muster_runtime.http.issuer_metadata import MetadataRefused, endpoint, metadata_addresses, parse_metadata
from muster_runtime.http.keys import KeySource
from muster_runtime.http.usable_keys import usable_keys
from tests.support.key_server import KeyServer
from tests.support.tokens import claims, signed, verifier_with

OPENID = "/.well-known/openid-configuration"
OAUTH = "/.well-known/oauth-authorization-server"


@pytest.fixture
def key() -> OKPKey:
    return OKPKey.generate_key("Ed25519", auto_kid=True)


def public(key: OKPKey, **members: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), **members}


@pytest.mark.parametrize(
    "unusable",
    [
        lambda key: OctKey.generate_key(256, auto_kid=True).as_dict(private=True),
        lambda key: key.as_dict(private=True),
        lambda key: {**public(key), "d": ""},
        lambda key: RSAKey.generate_key(1024, auto_kid=True).as_dict(private=False),
        lambda key: public(key, use="enc"),
        lambda key: public(key, use=["sig"]),
        lambda key: public(key, key_ops=["encrypt"]),
        lambda key: public(key, key_ops="verify"),
        lambda key: public(key, kid=7),
        lambda key: public(key, kty="AKP"),
        lambda key: public(key, crv="P-256"),
        lambda key: {"kty": "RSA", "kid": "half"},
        lambda key: {},
        lambda key: "text",
    ],
    ids=range(14),
)
@pytest.mark.filterwarnings("ignore:Key size should be")
def test_a_key_that_may_not_verify_is_ignored_and_the_others_are_used(
    key: OKPKey, unusable: Callable[[OKPKey], Any]
) -> None:
    other = OKPKey.generate_key("Ed25519", auto_kid=True)
    assert [found.kid for found in usable_keys({"keys": [unusable(other), public(key)]})] == [key.kid]
    with pytest.raises(ValueError, match="no usable key"):
        usable_keys({"keys": [unusable(other)]})


@pytest.mark.parametrize("members", [{}, {"use": "sig"}, {"key_ops": ["verify"]}, {"use": "sig", "alg": "Ed25519"}])
def test_a_key_for_signatures_is_used(key: OKPKey, members: dict[str, Any]) -> None:
    assert [found.kid for found in usable_keys({"keys": [public(key, **members)]})] == [key.kid]


async def test_a_shared_secret_among_the_keys_verifies_nothing(key: OKPKey) -> None:
    secret = OctKey.generate_key(256, auto_kid=True)
    with KeyServer({"keys": [public(key), secret.as_dict(private=True)]}) as server:
        verifier = verifier_with(KeySource(server.url), server.origin)
        assert await verifier.verify(signed(key, claims(iss=server.origin)))
        forged = jwt.encode({"alg": "HS256", "kid": secret.kid}, claims(iss=server.origin), secret, ["HS256"])
        with pytest.raises(Unauthenticated):
            await verifier.verify(f"Bearer {forged}")


async def test_a_key_verifies_only_its_own_algorithm() -> None:
    key = RSAKey.generate_key(2048, {"alg": "RS256"}, auto_kid=True)
    elliptic = ECKey.generate_key("P-256", {"kid": "elliptic"})
    with KeyServer(KeySet([key, elliptic]).as_dict(private=False)) as server:
        verifier = verifier_with(KeySource(server.url), server.origin)

        async def attempt(algorithm: str, kid: Any) -> None:
            free = RSAKey.import_key(key.as_pem(private=True))
            token = jwt.encode({"alg": algorithm, "kid": kid}, claims(iss=server.origin), free, [algorithm])
            await verifier.verify(f"Bearer {token}")

        await attempt("RS256", key.kid)
        for algorithm, kid in (("PS256", key.kid), ("RS256", "elliptic")):
            with pytest.raises(Unauthenticated):
                await attempt(algorithm, kid)


async def test_a_flood_of_unknown_keys_asks_the_issuer_once(key: OKPKey) -> None:
    with KeyServer({"keys": [public(key)]}) as server:
        verifier = verifier_with(KeySource(server.url), server.origin)
        await verifier.verify(signed(key, claims(iss=server.origin)))
        hopeless: list[dict[str, Any]] = [{"kid": 7}, {"alg": "none"}, {"alg": "HS256"}, {"typ": "logout+jwt"}]
        for header in hopeless:
            with pytest.raises(Unauthenticated):
                await verifier.verify(signed(key, claims(iss=server.origin), **{"kid": "unknown", **header}))
        assert server.asked == 1, "these need no request to the issuer"
        for number in range(100):
            with pytest.raises(Unauthenticated):
                await verifier.verify(signed(key, claims(iss=server.origin), kid=f"unknown-{number}"))
        assert server.asked == 2


@pytest.mark.parametrize("path", [OPENID, OAUTH])
async def test_the_issuers_metadata_names_its_keys(key: OKPKey, path: str) -> None:
    with KeyServer({"keys": [public(key)]}) as server:
        server.metadata[path] = {"issuer": server.origin, "jwks_uri": server.url}
        verifier = verifier_with(KeySource("", issuer=server.origin), server.origin)
        assert (await verifier.verify(signed(key, claims(iss=server.origin)))).actor == "ada"


@pytest.mark.parametrize(
    "change", [{"issuer": "http://elsewhere.test"}, {"issuer": None}, {"jwks_uri": None}, {"jwks_uri": 7}], ids=str
)
async def test_metadata_of_another_issuer_or_without_keys_is_not_followed(
    key: OKPKey, change: dict[str, object]
) -> None:
    with KeyServer({"keys": [public(key)]}) as server:
        server.metadata[OPENID] = {"issuer": server.origin, "jwks_uri": server.url} | change
        source = KeySource("", issuer=server.origin)
        with pytest.raises(RetryableError):
            await verifier_with(source, server.origin).verify(signed(key, claims(iss=server.origin)))
        assert "metadata" in str(await source.reason())
        assert server.asked == 1


def test_an_issuer_with_a_path_has_its_metadata_in_two_places() -> None:
    assert metadata_addresses("https://id.example.gov/realms/muster/") == (
        "https://id.example.gov/realms/muster/.well-known/openid-configuration",
        "https://id.example.gov/.well-known/oauth-authorization-server/realms/muster",
    )


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{}", b"[" * 3000, b'{"issuer":"https://id.example.gov/"}'], ids=range(5)
)
def test_metadata_that_is_not_the_issuers_is_refused(document: bytes) -> None:
    """RFC 8414, 3.3: the issuer must be the same, character by character."""
    with pytest.raises(MetadataRefused):
        parse_metadata(document, "https://id.example.gov")


def test_keys_of_an_issuer_with_tls_are_read_over_tls() -> None:
    metadata = {"issuer": "https://id.example.gov", "jwks_uri": "http://id.example.gov/keys"}
    with pytest.raises(MetadataRefused, match="not https"):
        endpoint(metadata, "jwks_uri")


@pytest.mark.parametrize("issuer", ["", "urn:muster:sandbox", "https://", "https://id.example.gov?realm=a"])
def test_an_issuer_that_is_not_a_url_needs_the_address_of_its_keys(issuer: str) -> None:
    with pytest.raises(ValueError, match="MUSTER_OIDC_JWKS"):
        KeySource("", issuer=issuer)
