"""Production needs its own subject key, and history has a retention period."""

import secrets
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from muster_entitlements.bootstrap import make_retentions
from muster_entitlements.settings import SANDBOX_SUBJECT_KEY, EntitlementsSettings


def test_the_sandbox_has_a_key() -> None:
    assert EntitlementsSettings(environment="sandbox").subject_key.get_secret_value() == SANDBOX_SUBJECT_KEY


@pytest.mark.parametrize("key", [None, SANDBOX_SUBJECT_KEY, "short", "k" * 32, "a-subject-key-to-be-kept-for-ever"])
def test_production_refuses_to_start_without_its_own_key(key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUSTER_SUBJECT_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("MUSTER_SUBJECT_KEY", key)
    with pytest.raises(ValidationError, match="production requires"):
        EntitlementsSettings(environment="production", kafka_bootstrap="")


def test_production_starts_with_one() -> None:
    EntitlementsSettings(environment="production", kafka_bootstrap="", subject_key=SecretStr(secrets.token_urlsafe(32)))


@pytest.mark.parametrize(
    ("days", "kept"),
    [
        ({}, None),
        ({"audit_retention_days": 400}, 400),
        ({"audit_retention_days": 400, "history_retention_days": 30}, 30),
        ({"history_retention_days": 36600}, 36600),
    ],
)
def test_history_is_kept_as_long_as_the_audit_trail_unless_set_otherwise(
    days: dict[str, Any], kept: int | None
) -> None:
    retentions = make_retentions(EntitlementsSettings(environment="sandbox", **days))
    assert {retention.keep.days for retention in retentions} == ({kept} if kept else set())
