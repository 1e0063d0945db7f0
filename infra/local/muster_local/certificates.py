"""A small certificate authority for the sandbox and the tests: server and client certificates as PEM files.

Not for production: only file permissions protect its key.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from muster_operator.private import open_private
from muster_runtime.clock import SystemClock

# The host names of a server on this machine.
LOCAL = ("localhost", "127.0.0.1", "::1")

_AUTHORITY_LIFETIME = timedelta(days=3650)
LIFETIME = timedelta(days=365)

# Clocks differ, so a certificate is valid from shortly before it is issued.
_BACKDATED = timedelta(minutes=5)


@dataclass(frozen=True)
class Certificate:
    """A certificate, its key, and a file with both, which Kafka accepts as a keystore. All files have mode 0600."""

    certificate: Path
    key: Path
    both: Path


@dataclass(frozen=True)
class Authority:
    """A certificate authority. Anyone who trusts it needs `certificate`; `folder` also contains what it issues."""

    folder: Path
    _key: ec.EllipticCurvePrivateKey
    _certificate: x509.Certificate

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load the authority in a folder; create one if there is none."""
        path = folder / "ca.both.pem"
        if not path.exists():
            _make_authority(folder)
        pem = path.read_bytes()
        key = serialization.load_pem_private_key(pem, password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return cls(folder, key, x509.load_pem_x509_certificate(pem))

    @property
    def certificate(self) -> Path:
        """The authority's own certificate."""
        return self.folder / "ca.pem"

    def issue(
        self,
        name: str,
        *,
        hosts: Sequence[str] = LOCAL,
        lifetime: timedelta = LIFETIME,
        starts_at: datetime | None = None,
    ) -> Certificate:
        """Issue a server and client certificate with the subject `CN=name` and the alternative names `hosts`.

        It replaces an earlier certificate with that name. It is valid for `lifetime` from `starts_at`, by default 5
        minutes ago. With a start far enough in the past, it has already expired.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        start = starts_at or SystemClock().now() - _BACKDATED
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(name, self._certificate.subject, key.public_key(), start, start + lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return _write(self.folder, name, key, certificate)


def _make_authority(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = "Muster's sandbox"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = SystemClock().now() - _BACKDATED
    unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    usage = dict.fromkeys((*unused, "decipher_only"), False)
    certificate = (
        _builder(name, subject, key.public_key(), start, start + _AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(folder, "ca", key, certificate)


def _builder(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(folder: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Certificate:
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    made = Certificate(folder / f"{name}.pem", folder / f"{name}.key", folder / f"{name}.both.pem")
    for path, content in ((made.certificate, public), (made.key, secret), (made.both, secret + public)):
        _replace(path, content)
    return made


def _replace(path: Path, content: bytes) -> None:
    """Replace a file atomically, so that a process that reloads it never reads half of it."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with open(new, "xb", opener=open_private) as file:
        file.write(content)
        os.fsync(file.fileno())
    new.replace(path)
