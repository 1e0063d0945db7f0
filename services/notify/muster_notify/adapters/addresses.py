"""Resolves the hosts of webhooks, and refuses addresses that are not public.

Each attempt resolves the name, checks all its addresses, and connects to a checked one, so that the name cannot change
its address in between.
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


class AddressRefused(Exception):
    """The host has no address that is public. The message omits the address, which may be secret."""


async def resolve(host: str) -> Sequence[Address]:
    """Every address of a host, in order of preference. Raises OSError if there is none, UnicodeError if none can be.

    A lookup cannot be stopped, and whoever owns the name decides how long it takes. So each has a thread of its own,
    not one of the event loop's few, which the mail server, Postgres, and Kafka need. A process that ends does not wait
    for it, as it would for the threads of an executor.
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
    """Which addresses a webhook may connect to."""

    def __init__(self, *, allow_private: bool, resolve: Resolve = resolve) -> None:
        self._allow_private = allow_private
        self._resolve = resolve

    async def addresses(self, host: str) -> Sequence[Address]:
        """The addresses of a host that a webhook may connect to. Raises AddressRefused."""
        try:
            addresses = await self._resolve(host)
        except (OSError, UnicodeError):
            raise AddressRefused("the host name could not be resolved") from None
        if not self._allow_private and not all(is_public(address) for address in addresses):
            raise AddressRefused("the host resolves to an address that is not public")
        return addresses
