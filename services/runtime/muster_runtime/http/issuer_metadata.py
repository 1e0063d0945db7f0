"""Parses an issuer's metadata: OpenID Connect Discovery 1.0 (4) and RFC 8414 (3). No I/O, and no web framework."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit


class MetadataRefused(ValueError):
    """The document is not the issuer's metadata; the message says why."""


def is_discoverable(issuer: str) -> bool:
    """Whether an issuer is a URL with metadata that can be looked up."""
    parts = urlsplit(issuer)
    return parts.scheme in ("https", "http") and bool(parts.netloc) and not parts.query and not parts.fragment


def metadata_addresses(issuer: str) -> tuple[str, str]:
    """Where an issuer's metadata may be: first as OpenID Connect defines it, then as RFC 8414, 3.1 does."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    origin = f"{parts.scheme}://{parts.netloc}"
    return (
        f"{origin}{path}/.well-known/openid-configuration",
        f"{origin}/.well-known/oauth-authorization-server{path}",
    )


def parse_metadata(document: bytes, issuer: str) -> Mapping[str, Any]:
    """Parse a metadata document.

    Raises MetadataRefused, also if it is another issuer's: RFC 8414, 3.3 compares the two exactly as written.
    """
    try:
        metadata = json.loads(document)
    except (ValueError, RecursionError):
        raise MetadataRefused(f"the metadata of {issuer} is not JSON") from None
    if not isinstance(metadata, dict):
        raise MetadataRefused(f"the metadata of {issuer} is not an object")
    if metadata.get("issuer") != issuer:
        raise MetadataRefused(f"the metadata of {issuer} names the issuer {str(metadata.get('issuer'))[:200]!r}")
    return metadata


def endpoint(metadata: Mapping[str, Any], name: str) -> str:
    """An endpoint's address in the metadata. Raises MetadataRefused if it is missing or not safe."""
    issuer = metadata["issuer"]
    address = metadata.get(name)
    if not isinstance(address, str) or not address:
        raise MetadataRefused(f"the metadata of {issuer} has no {name}")
    if urlsplit(address).scheme not in ({"https"} if issuer.startswith("https:") else {"https", "http"}):
        raise MetadataRefused(f"the metadata of {issuer} has a {name} that is not https: {address[:200]}")
    return address
