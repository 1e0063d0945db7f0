"""Resolves webhooks' hosts, and refuses addresses that are not public.

Each attempt resolves the name, checks all its addresses, and connects to a checked one, so the name cannot change its
address in between.
"""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from ipaddress import ip_address
from typing import Any

from muster_notify.domain.urls import Address, is_public

Resolve = Callable[[str], Awaitable[Sequence[Address]]]

# One message for both: two would say which names exist inside the network.
_NOT_PUBLIC = "the host name has no address, or one that is not public"


class AddressRefused(Exception):
    """The host has an address that is not public, or cannot be resolved.

    The message omits the address, which may be secret.
    """


async def resolve(host: str) -> Sequence[Address]:
    """All addresses of a host, in order of preference.

    Raises OSError if there are none, and UnicodeError for an invalid name.

    A lookup cannot be canceled, and the owner of the name decides how long it takes. So each lookup has its own thread
    instead of one of the event loop's few, which the mail server, Postgres, and Kafka need. An ending process does not
    wait for it, as it would for an executor's threads.
    """
    lookup: Future[Any] = Future()
    threading.Thread(target=_look_up, args=(host, lookup), name="lookup", daemon=True).start()
    infos = await asyncio.wrap_future(lookup)
    return [ip_address(str(info[4][0]).split("%")[0]) for info in infos]


def _look_up(host: str, lookup: "Future[Any]") -> None:
    lookup.set_running_or_notify_cancel()
    try:
        lookup.set_result(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except Exception as error:
        lookup.set_exception(error)


class AddressPolicy:
    """Decides which addresses a webhook may connect to."""

    def __init__(self, *, allow_private: bool, resolve: Resolve = resolve) -> None:
        self._allow_private = allow_private
        self._resolve = resolve

    async def addresses(self, host: str) -> Sequence[Address]:
        """The addresses of a host that a webhook may connect to. Raises AddressRefused."""
        try:
            addresses = await self._resolve(host)
        except (OSError, UnicodeError):
            reason = "the host name could not be resolved" if self._allow_private else _NOT_PUBLIC
            raise AddressRefused(reason) from None
        if not self._allow_private and not all(is_public(address) for address in addresses):
            raise AddressRefused(_NOT_PUBLIC)
        return addresses
