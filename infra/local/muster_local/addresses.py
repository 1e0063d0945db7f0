"""Addresses that are safe to print."""

from urllib.parse import urlsplit


def without_secrets(address: str) -> str:
    """An address without its user, password, and database."""
    return urlsplit(address).netloc.rpartition("@")[2] if "://" in address else address
