"""The settings of entitlements: the runtime's, and the key of the pseudonyms."""

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from muster_runtime.settings import Settings

SANDBOX_SUBJECT_KEY = "sandbox-subject-key"
SHORTEST_SUBJECT_KEY = 32


class EntitlementsSettings(Settings):
    """What entitlements is told from outside (prefix MUSTER_)."""

    subject_key: SecretStr = Field(
        default=SecretStr(SANDBOX_SUBJECT_KEY),
        validate_default=True,
        description="Key of the subject references. Whoever has it can tell who a reference is; "
        "a new key makes new references, so it stays as long as the seats do.",
    )

    @field_validator("subject_key")
    @classmethod
    def _production_has_a_key_of_its_own(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        key = value.get_secret_value()
        own = key != SANDBOX_SUBJECT_KEY and len(key) >= SHORTEST_SUBJECT_KEY
        if info.data.get("environment") == "production" and not own:
            raise ValueError(f"production asks for a secret key of at least {SHORTEST_SUBJECT_KEY} characters")
        return value
