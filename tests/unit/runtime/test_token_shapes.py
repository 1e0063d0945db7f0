"""Tokens with every usual signature are accepted; changed ones and nonsense are refused."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

from muster_runtime.http.identity import Unauthenticated
from muster_runtime.http.issuer import Issuer
from muster_runtime.http.tokens import TokenVerifier
from tests.support.eventually import eventually
from tests.support.tokens import AUDIENCE, ISSUER, claims, encoded, verifier_of


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


async def refused(verifier: TokenVerifier, header: str) -> bool:
    try:
        await verifier.verify(header)
    except Unauthenticated:
        return True
    return False


async def test_an_accepted_token_is_refused_once_its_key_is_withdrawn(tmp_path: Path) -> None:
    """Its signature is verified only once for the same set of keys."""
    ours, others = (Issuer.load(tmp_path / name, issuer=ISSUER, audience=AUDIENCE) for name in ("ours", "others"))
    verifier = verifier_of(ours.jwks(), tmp_path)
    header = f"Bearer {ours.token(['sample:read'], agency='NASA')}"
    assert [(await verifier.verify(header)).agencies for _ in range(2)] == [{"NASA"}] * 2
    (tmp_path / "jwks.json").write_text(json.dumps(others.jwks()))
    await eventually(lambda: refused(verifier, header))


@given(place=st.integers(0, 1000), letter=st.characters(exclude_categories=["Cs"]))
@settings(max_examples=200)
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
@settings(max_examples=200)
async def test_nonsense_in_a_tokens_header_is_refused(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any], payload: bytes, signature: bytes
) -> None:
    directory = tmp_path_factory.mktemp("keys")
    issuer = Issuer.load(directory / "issuer.pem", issuer=ISSUER, audience=AUDIENCE)
    parts = (base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (payload, signature))
    with pytest.raises(Unauthenticated):
        await verifier_of(issuer.jwks(), directory).verify("Bearer " + ".".join([encoded(header), *parts]))
