"""How the examples connect to Kafka: the brokers, TLS, and what identifies the subscriber, from the environment.

MUSTER_KAFKA_BOOTSTRAP: the brokers, `host:port,host:port`.
MUSTER_KAFKA_SECURITY_PROTOCOL: SASL_SSL (a user and a password), SSL (a client certificate), or PLAINTEXT, the default.
MUSTER_KAFKA_USERNAME, and MUSTER_KAFKA_PASSWORD or the file MUSTER_KAFKA_PASSWORD_FILE: for SASL_SSL (SCRAM-SHA-512).
MUSTER_KAFKA_CA_FILE: the authorities of the brokers' certificates, as PEM; by default the system's.
MUSTER_KAFKA_CERTIFICATE_FILE, MUSTER_KAFKA_KEY_FILE: the client certificate and its key, as PEM.
"""

import os
import ssl
import sys
from pathlib import Path
from typing import Any

BOOTSTRAP = os.environ.get("MUSTER_KAFKA_BOOTSTRAP", "localhost:9092")
PROTOCOL = os.environ.get("MUSTER_KAFKA_SECURITY_PROTOCOL", "PLAINTEXT")
MECHANISM = "SCRAM-SHA-512"
USERNAME = os.environ.get("MUSTER_KAFKA_USERNAME", "")
CA_FILE = os.environ.get("MUSTER_KAFKA_CA_FILE", "")
CERTIFICATE_FILE = os.environ.get("MUSTER_KAFKA_CERTIFICATE_FILE", "")
KEY_FILE = os.environ.get("MUSTER_KAFKA_KEY_FILE", "")


def for_aiokafka() -> dict[str, Any]:
    """The options of a client of aiokafka."""
    options: dict[str, Any] = {"bootstrap_servers": BOOTSTRAP, "security_protocol": PROTOCOL}
    if PROTOCOL != "PLAINTEXT":
        options["ssl_context"] = tls()
    if PROTOCOL == "SASL_SSL":
        options |= {"sasl_mechanism": MECHANISM, "sasl_plain_username": USERNAME, "sasl_plain_password": password()}
    return options


def for_librdkafka() -> dict[str, Any]:
    """The configuration of a client of confluent-kafka, which is librdkafka's."""
    options = {
        "bootstrap.servers": BOOTSTRAP,
        "security.protocol": PROTOCOL,
        "ssl.ca.location": CA_FILE,
        "ssl.certificate.location": CERTIFICATE_FILE,
        "ssl.key.location": KEY_FILE,
    }
    if PROTOCOL == "SASL_SSL":
        options |= {"sasl.mechanisms": MECHANISM, "sasl.username": USERNAME, "sasl.password": password()}
    return {name: value for name, value in options.items() if value}


def tls() -> ssl.SSLContext:
    """A context that verifies the brokers' certificates and names, and presents the client's, if it has one."""
    context = ssl.create_default_context(cafile=CA_FILE or None)
    if CERTIFICATE_FILE:
        context.load_cert_chain(CERTIFICATE_FILE, KEY_FILE)
    return context


def password() -> str:
    """The password, from its variable or its file. Ends the program with one line if neither is set."""
    if file := os.environ.get("MUSTER_KAFKA_PASSWORD_FILE"):
        return Path(file).read_text().rstrip("\n")
    return os.environ.get("MUSTER_KAFKA_PASSWORD") or sys.exit(
        "set MUSTER_KAFKA_PASSWORD_FILE or MUSTER_KAFKA_PASSWORD"
    )
