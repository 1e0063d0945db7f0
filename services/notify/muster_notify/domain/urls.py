"""Checks and shows webhook URLs: https on public networks; the sandbox also allows http and private networks."""

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from muster_runtime.errors import InvalidInput

Address = IPv4Address | IPv6Address

LONGEST_URL = 2000

# The only IPv6 block in public use (RFC 4291, IANA), and 6to4 within it, which can lead to any IPv4 address.
_PUBLIC_IPV6 = IPv6Network("2000::/3")
_SIX_TO_FOUR = IPv6Network("2002::/16")

# A name that DNS can resolve (RFC 1035, 2.3.4; with underscores, which some use); its last part is not a number.
_NAME = re.compile(r"(?=.{1,253}\.?$)([a-z0-9_-]{1,63}\.)*(?!\d+\.?$)[a-z0-9_-]{1,63}\.?")


def is_public(address: Address) -> bool:
    """Whether an address is public: not loopback, private, link-local, shared, multicast, or reserved."""
    if isinstance(address, IPv6Address):
        return address in _PUBLIC_IPV6 and address not in _SIX_TO_FOUR and address.is_global
    return address.is_global and not address.is_multicast


def normal_url(url: str) -> str:
    """The normal form of a webhook's URL (RFC 3986, 6.2.2 and 6.2.3)."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    port = "" if parts.port in (None, default) else f":{parts.port}"
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path or '/'}?{parts.query}"


def shown_url(url: str) -> str:
    """The URL with `…` for its path and query, which may contain the receiver's secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/…" if parts.path not in ("", "/") or parts.query else url


def check_url(url: str, *, allow_private: bool) -> None:
    """Raise InvalidInput for a URL that could never receive a delivery."""
    if not url.isascii() or not url.isprintable() or " " in url or len(url) > LONGEST_URL:
        raise InvalidInput("url", url, f"must be printable ASCII of at most {LONGEST_URL} characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise InvalidInput("url", url, "must be a URL") from None
    schemes = ("https", "http") if allow_private else ("https",)
    if parts.scheme not in schemes:
        raise InvalidInput("url", url, f"must start with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if not host:
        raise InvalidInput("url", url, "must name a host")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InvalidInput("url", url, "must contain neither a user nor a fragment")
    if port == 0:
        raise InvalidInput("url", url, "must have a port from 1 to 65535")
    _check_host(url, host, allow_private=allow_private)


def _check_host(url: str, host: str, *, allow_private: bool) -> None:
    if _NAME.fullmatch(host):
        return  # each attempt resolves it
    try:
        address = ip_address(host)
    except ValueError:
        address = None
    if address is None or "%" in host:  # a zone is meaningful on one machine only
        rule = "must name a host by an IP address, or by a name of parts of 1 to 63 letters, digits, - or _, 253 in all"
        raise InvalidInput("url", url, rule)
    if not allow_private and not is_public(address):
        raise InvalidInput("url", url, "must be a public address")
