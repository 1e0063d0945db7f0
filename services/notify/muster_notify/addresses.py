"""Which URLs a webhook may call: only those on public networks.

Each attempt resolves the name, checks all its addresses, and connects to a checked one, so that the name cannot change
its address in between.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from muster_runtime.errors import InvalidInput

Address = IPv4Address | IPv6Address
Resolve = Callable[[str], Awaitable[Sequence[Address]]]

# The one block of IPv6 addresses in public use (RFC 4291, IANA), and 6to4 in it, which leads to any IPv4 address.
_PUBLIC_IPV6 = IPv6Network("2000::/3")
_SIX_TO_FOUR = IPv6Network("2002::/16")

LONGEST_URL = 2000


class AddressRefused(Exception):
    """The host resolves to an address that is not public. The message omits the address, which may be secret."""


def is_public(address: Address) -> bool:
    """Whether an address is public: not loopback, private, link-local, shared, multicast or reserved."""
    if isinstance(address, IPv6Address):
        return address in _PUBLIC_IPV6 and address not in _SIX_TO_FOUR and address.is_global
    return address.is_global and not address.is_multicast


async def resolve(host: str) -> Sequence[Address]:
    """Every address of a host, in order of preference. Raises OSError if there is none."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [ip_address(str(info[4][0]).split("%")[0]) for info in infos]


def normal_url(url: str) -> str:
    """One form for all the ways to write a URL of a webhook (RFC 3986, 6.2.2 and 6.2.3)."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    port = "" if parts.port in (None, default) else f":{parts.port}"
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path or '/'}?{parts.query}"


class AddressPolicy:
    """Which addresses and URLs are allowed."""

    def __init__(self, *, allow_private: bool, resolve: Resolve = resolve) -> None:
        self._allow_private = allow_private
        self._resolve = resolve

    async def addresses(self, host: str) -> Sequence[Address]:
        """The addresses of a host that a webhook may connect to. Raises AddressRefused, or OSError."""
        addresses = await self._resolve(host)
        if not self._allow_private and not all(is_public(address) for address in addresses):
            raise AddressRefused("the host resolves to an address that is not public")
        return addresses

    def check_url(self, url: str) -> None:
        """Raise InvalidInput for a URL that could never receive a delivery."""
        if not url.isascii() or not url.isprintable() or " " in url or len(url) > LONGEST_URL:
            raise InvalidInput("url", url, f"must be printable ASCII of at most {LONGEST_URL} characters")
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise InvalidInput("url", url, "must be a URL") from None
        schemes = ("https", "http") if self._allow_private else ("https",)
        if parts.scheme not in schemes:
            raise InvalidInput("url", url, f"must start with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        if not host:
            raise InvalidInput("url", url, "must name a host")
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise InvalidInput("url", url, "must contain neither a user nor a fragment")
        self._check_literal(url, host)

    def _check_literal(self, url: str, host: str) -> None:
        try:
            address = ip_address(host)
        except ValueError:
            return  # a name: it is resolved at each attempt
        if not self._allow_private and not is_public(address):
            raise InvalidInput("url", url, "must be a public address")
