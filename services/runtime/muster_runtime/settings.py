"""The settings that every service shares, from the environment (prefix MUSTER_), frozen."""

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What a service is told from outside. A service with settings of its own subclasses it."""

    model_config = SettingsConfigDict(env_prefix="MUSTER_", frozen=True, extra="ignore", hide_input_in_errors=True)

    environment: Literal["production", "sandbox"] = "production"
    instance: str = Field(default="", description="This process's name in leases and logs.")

    postgres_api_dsn: SecretStr = SecretStr("")
    postgres_worker_dsn: SecretStr = SecretStr("")
    postgres_owner_dsn: SecretStr = SecretStr("")
    postgres_pool_size: int = Field(default=10, ge=2, le=100)

    kafka_bootstrap: str = ""
    topic_prefix: str = Field(default="", description="Put before each topic's and group's name.")

    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8000, ge=0, le=65535)

    oidc_issuer: str = ""
    oidc_audience: str = "muster"
    oidc_jwks: str = Field(default="", description="URL, or path of a file, of the issuer's keys.")

    log_level: Literal["debug", "info", "warning", "error"] = "info"
