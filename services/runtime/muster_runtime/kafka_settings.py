"""The settings for Kafka, the same for the services and the operator's commands."""

from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from muster_runtime.secrets import PREFIX, SecretFiles


class KafkaSettings(BaseSettings):
    """The brokers, the protocol, and the credentials. Certificate files are read again when they change."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True, validate_default=True
    )

    kafka_bootstrap: str = Field(default="", description="host:port of every broker, separated by commas.")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="With SSL, the client's certificate, if it has one, identifies it."
    )
    kafka_sasl_mechanism: Literal["SCRAM-SHA-512", "OAUTHBEARER"] = "SCRAM-SHA-512"
    kafka_username: SecretStr = Field(default=SecretStr(""), description="For SCRAM-SHA-512.")
    kafka_password: SecretStr = Field(default=SecretStr(""), description="For SCRAM-SHA-512.")
    kafka_ca_file: str = Field(
        default="",
        description="PEM file of the CAs that issued the brokers' certificates. Default: the system's CAs.",
    )
    kafka_certificate_file: str = Field(default="", description="PEM file with the client's certificate and its chain.")
    kafka_key_file: str = Field(default="", description="PEM file with the certificate's private key.")
    kafka_token_url: str = Field(default="", description="For OAUTHBEARER: the token endpoint (client credentials).")
    kafka_client_id: str = Field(default="", description="For OAUTHBEARER.")
    kafka_client_secret: SecretStr = Field(default=SecretStr(""), description="For OAUTHBEARER.")
    kafka_scope: str = Field(default="", description="For OAUTHBEARER: the scope to request, if any.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment, then each secret's own file, then the folder of secrets."""
        return init_settings, env_settings, SecretFiles(settings_cls)

    @model_validator(mode="after")
    def _credentials_are_complete(self) -> Self:
        needed: dict[str, object] = {}
        if self.kafka_certificate_file or self.kafka_key_file:
            needed = {"certificate_file": self.kafka_certificate_file, "key_file": self.kafka_key_file}
        if self.kafka_security_protocol == "SASL_SSL":
            if self.kafka_sasl_mechanism == "OAUTHBEARER":
                needed |= {"token_url": self.kafka_token_url, "client_id": self.kafka_client_id}
                needed["client_secret"] = self.kafka_client_secret.get_secret_value()
            else:
                needed["username"] = self.kafka_username.get_secret_value()
                needed["password"] = self.kafka_password.get_secret_value()
        for name, value in needed.items():
            if not value:
                raise ValueError(
                    f"{PREFIX}KAFKA_{name.upper()} is not set, but {self.kafka_security_protocol} requires it here"
                )
        if self.kafka_security_protocol == "PLAINTEXT" and self.kafka_password.get_secret_value():
            raise ValueError(f"{PREFIX}KAFKA_PASSWORD is set, but {PREFIX}KAFKA_SECURITY_PROTOCOL is PLAINTEXT")
        return self
