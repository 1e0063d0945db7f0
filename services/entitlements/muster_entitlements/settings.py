"""The settings of entitlements: the runtime's, the key of the subject references, and how long history is kept."""

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from muster_runtime.secrets import weakness
from muster_runtime.settings import Settings

SANDBOX_SUBJECT_KEY = "sandbox-subject-key"
SHORTEST_SUBJECT_KEY = 32


class EntitlementsSettings(Settings):
    """The settings of entitlements (prefix MUSTER_)."""

    subject_key: SecretStr = Field(
        default=SecretStr(SANDBOX_SUBJECT_KEY),
        validate_default=True,
        description="The key of the subject references. Anyone who has it can identify the person behind a reference. "
        "Never rotate it: another key would give everyone a new reference, so the service refuses to start with one.",
    )

    history_retention_days: int | None = Field(
        default=None,
        ge=30,
        le=36600,
        description="How many days to keep earlier states of pools, windows, seats, and quotas, and the IDs of the "
        "events behind whatever is over. Default: as long as audit rows.",
    )

    @field_validator("subject_key")
    @classmethod
    def _production_has_a_key_of_its_own(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        reason = weakness(value.get_secret_value(), SHORTEST_SUBJECT_KEY)
        if info.data.get("environment") == "production" and reason:
            raise ValueError(reason)
        return value
