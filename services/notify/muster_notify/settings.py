"""The settings of notify: the runtime's, the mail server, and the key of the webhooks' secrets."""

from collections.abc import Sequence
from typing import Self

from cryptography.fernet import Fernet, MultiFernet
from pydantic import Field, SecretStr, field_validator, model_validator

from muster_notify.domain.contacts import parse_address
from muster_runtime.secrets import weakness
from muster_runtime.settings import Settings

SANDBOX_SECRET_KEY = "c2FuZGJveC1zZWNyZXQta2V5LW9mLTMyLWJ5dGVzLi4="  # noqa: S105 - production refuses it
SANDBOX_ADDRESS = "muster@muster.example"


class NotifySettings(Settings):
    """The settings of notify (prefix MUSTER_)."""

    smtp_host: str = "127.0.0.1"
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_username: str = Field(default="", description="The user name for the login. If empty, no login.")
    smtp_password: SecretStr = SecretStr("")
    smtp_starttls: bool = Field(default=True, description="Send only over TLS.")
    smtp_from: str = Field(default=SANDBOX_ADDRESS, description="The sender's address.")
    operators_email: str = Field(default=SANDBOX_ADDRESS, description="The operators' address.")

    delivery_retention_days: int = Field(
        default=90,
        ge=30,
        le=3660,
        description="How many days to keep a delivery and its attempts after it was delivered or failed.",
    )

    webhook_allow_private: bool = Field(
        default=False, description="Sandbox only: allow webhooks to private addresses, and over http."
    )
    webhook_timeout_seconds: float = Field(default=15, gt=0, le=30)
    secret_key: SecretStr = Field(
        default=SecretStr(SANDBOX_SECRET_KEY),
        description="The keys that encrypt the webhooks' secrets, separated by commas or line breaks: each is 32 bytes "
        "in URL-safe base64. The first key encrypts, and all decrypt. Secrets encrypted with another key are "
        "re-encrypted.",
    )

    @field_validator("smtp_from", "operators_email")
    @classmethod
    def _is_an_address(cls, address: str) -> str:
        parsed = parse_address(address)
        if parsed is None or parsed.addr_spec != address:
            raise ValueError("must be one address and nothing else, such as muster@agency.example")
        return address

    @field_validator("secret_key")
    @classmethod
    def _has_keys(cls, keys: SecretStr) -> SecretStr:
        try:
            MultiFernet([Fernet(key) for key in keys_of(keys.get_secret_value())])
        except ValueError:
            raise ValueError("each key must be 32 bytes in URL-safe base64") from None
        return keys

    @model_validator(mode="after")
    def _production_has_no_sandbox_values(self) -> Self:
        if self.environment == "production":
            if self.webhook_allow_private:
                raise ValueError("MUSTER_WEBHOOK_ALLOW_PRIVATE is allowed only in the sandbox")
            keys = keys_of(self.secret_key.get_secret_value())
            if SANDBOX_SECRET_KEY in keys or any(weakness(key) for key in keys):
                raise ValueError("MUSTER_SECRET_KEY: production requires its own random keys")
            password = self.smtp_password.get_secret_value()
            if password and (reason := weakness(password)):
                raise ValueError(f"MUSTER_SMTP_PASSWORD: {reason}")
            if self.smtp_username and not password:
                raise ValueError("MUSTER_SMTP_PASSWORD is not set, which MUSTER_SMTP_USERNAME needs")
            if self.smtp_username and not self.smtp_starttls and not self.allow_plaintext:
                raise ValueError("MUSTER_SMTP_STARTTLS: a login requires it, or MUSTER_ALLOW_PLAINTEXT=true")
            if SANDBOX_ADDRESS in (self.smtp_from, self.operators_email):
                raise ValueError("MUSTER_SMTP_FROM and MUSTER_OPERATORS_EMAIL: production requires real addresses")
        return self


def keys_of(keys: str) -> Sequence[str]:
    """The keys in a setting, separated by commas or line breaks."""
    return [key.strip() for key in keys.replace(",", "\n").splitlines() if key.strip()]
