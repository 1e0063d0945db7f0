"""The settings of notify."""

import pytest
from cryptography.fernet import Fernet, InvalidToken
from pydantic import SecretStr, ValidationError

from muster_notify.adapters.vault import Vault, new_secret
from muster_notify.settings import NotifySettings
from muster_runtime.secrets import explain

KEY = Fernet.generate_key().decode()
PRODUCTION = {
    "environment": "production",
    "kafka_bootstrap": "",
    "secret_key": KEY,
    "smtp_from": "muster@agency.example",
    "operators_email": "operators@agency.example",
}


def test_production_starts_with_its_own_values() -> None:
    assert NotifySettings.model_validate(PRODUCTION).smtp_starttls


@pytest.mark.parametrize("missing", ["secret_key", "smtp_from", "operators_email"])
def test_production_refuses_the_sandbox_values(missing: str) -> None:
    given = {name: value for name, value in PRODUCTION.items() if name != missing}
    with pytest.raises(ValidationError, match=f"MUSTER_{missing.upper()}"):
        NotifySettings.model_validate(given)


@pytest.mark.parametrize("name", ["smtp_from", "operators_email"])
@pytest.mark.parametrize(
    "address",
    [
        "",
        "muster",
        "@a.gov",
        "Muster <muster@a.gov>",
        "muster@a.gov\n",
        "muster@a.gov ",
        "a@a.gov, b@a.gov",
        "a b@a.gov",
    ],
)
def test_what_is_no_single_address_is_refused(name: str, address: str) -> None:
    with pytest.raises(ValidationError) as refused:
        NotifySettings.model_validate({**PRODUCTION, name: address})
    assert explain(refused.value).startswith(f"MUSTER_{name.upper()}: must be one address")


def test_production_refuses_private_addresses() -> None:
    with pytest.raises(ValidationError, match="MUSTER_WEBHOOK_ALLOW_PRIVATE"):
        NotifySettings.model_validate({**PRODUCTION, "webhook_allow_private": True})


def test_production_refuses_an_unencrypted_mail_login() -> None:
    login = {"smtp_username": "notify", "smtp_password": Fernet.generate_key().decode()}
    assert NotifySettings.model_validate({**PRODUCTION, **login}).smtp_starttls
    in_clear = {**PRODUCTION, **login, "smtp_starttls": False}
    with pytest.raises(ValidationError, match="MUSTER_SMTP_STARTTLS"):
        NotifySettings.model_validate(in_clear)
    assert not NotifySettings.model_validate({**in_clear, "allow_plaintext": True}).smtp_starttls


def test_an_invalid_key_is_refused_without_being_shown() -> None:
    with pytest.raises(ValidationError, match="32 bytes") as refused:
        NotifySettings(environment="sandbox", secret_key="a-word-to-be-kept")
    assert "a-word-to-be-kept" not in str(refused.value)


def test_a_sealed_secret_opens_only_with_its_key() -> None:
    secret = new_secret()
    sealed = Vault(SecretStr(KEY)).seal(secret)
    assert secret.encode() not in sealed
    assert Vault(SecretStr(KEY)).open(sealed) == secret
    other = Fernet.generate_key().decode()
    assert Vault(SecretStr(f"{other},{KEY}")).open(sealed) == secret
    assert Vault(SecretStr(f"{KEY}\n{other}\n")).open(Vault(SecretStr(f"{other}")).seal(secret)) == secret
    with pytest.raises(InvalidToken):
        Vault(SecretStr(Fernet.generate_key().decode())).open(sealed)
