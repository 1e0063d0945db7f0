"""The settings of notify: the runtime's, the mail server, and the key of the webhooks' secrets."""

from typing import Self

from cryptography.fernet import Fernet
from pydantic import Field, SecretStr, field_validator, model_validator

from muster_runtime.settings import Settings

SANDBOX_SECRET_KEY = "c2FuZGJveC1zZWNyZXQta2V5LW9mLTMyLWJ5dGVzLi4="  # noqa: S105 - production refuses it
SANDBOX_ADDRESS = "muster@muster.example"


class NotifySettings(Settings):
    """The settings of notify (prefix MUSTER_)."""

    smtp_host: str = "127.0.0.1"
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_username: str = Field(default="", description="If empty, no login.")
    smtp_password: SecretStr = SecretStr("")
    smtp_starttls: bool = Field(default=True, description="Send only over TLS.")
    smtp_from: str = Field(default=SANDBOX_ADDRESS, description="Address of the sender.")
    operators_email: str = Field(default=SANDBOX_ADDRESS, description="The operators' address.")

    delivery_retention_days: int = Field(
        default=90,
        ge=30,
        le=3660,
        description="Days for which a delivery and its attempts are kept after it was delivered or failed.",
    )

    webhook_allow_private: bool = Field(
        default=False, description="Sandbox only: allow webhooks to private addresses, and over http."
    )
    webhook_timeout_seconds: float = Field(default=15, gt=0, le=30)
    secret_key: SecretStr = Field(
        default=SecretStr(SANDBOX_SECRET_KEY),
        description="The key that seals the webhooks' secrets: 32 bytes in URL-safe base64.",
    )

    @field_validator("secret_key")
    @classmethod
    def _is_a_key(cls, key: SecretStr) -> SecretStr:
        try:
            Fernet(key.get_secret_value())
        except ValueError:
            raise ValueError("MUSTER_SECRET_KEY must be 32 bytes in URL-safe base64") from None
        return key

    @model_validator(mode="after")
    def _production_has_no_sandbox_values(self) -> Self:
        if self.environment == "production":
            if self.webhook_allow_private:
                raise ValueError("MUSTER_WEBHOOK_ALLOW_PRIVATE is allowed only in the sandbox")
            if self.secret_key.get_secret_value() == SANDBOX_SECRET_KEY:
                raise ValueError("MUSTER_SECRET_KEY: production requires its own key")
            if SANDBOX_ADDRESS in (self.smtp_from, self.operators_email):
                raise ValueError("MUSTER_SMTP_FROM and MUSTER_OPERATORS_EMAIL: production requires real addresses")
        return self
