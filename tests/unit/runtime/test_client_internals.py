"""What aiokafka does not expect from a connection, on the services' event loop."""

import asyncio
import socket
import ssl
import struct
from pathlib import Path
from typing import cast

import pytest
import uvloop
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import ApiVersionRequest

from muster_local.certificates import Authority

# The answer to a connection's first request, which asks for the versions that the broker supports: none.
NO_VERSIONS = struct.pack(">iihi", 10, 1, 0, 0)

# A connection that is closed with this is reset.
AT_ONCE = struct.pack("ii", 1, 0)


def test_a_request_at_the_moment_of_a_reset_fails_as_on_any_broken_connection() -> None:
    uvloop.run(_request_after_reset())


async def _request_after_reset() -> None:
    """The client still considers the connection open after its transport was closed."""
    server = await asyncio.start_server(_reset_after_the_versions, "127.0.0.1", 0)
    connection = await create_conn("127.0.0.1", server.sockets[0].getsockname()[1])
    connection._writer.write(b"more")
    while connection._reader.exception() is None:
        await asyncio.sleep(0)
    assert connection.connected()
    with pytest.raises(KafkaConnectionError, match="closed=True"):
        connection.send(ApiVersionRequest())
    assert not connection.connected()
    server.close()


async def _reset_after_the_versions(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    await reader.readexactly(size)
    writer.write(NO_VERSIONS)
    await reader.readexactly(len(b"more"))
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    writer.transport.abort()


def test_a_tls_connection_closes_at_once_even_if_the_broker_does_not_read(tmp_path: Path) -> None:
    uvloop.run(_close_unheard(Authority.load(tmp_path)))


async def _close_unheard(authority: Authority) -> None:
    """The transport's own close waits for the broker to close, and a broker reads nothing while it still answers."""
    certificate = authority.issue("broker")
    inbound = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    inbound.load_cert_chain(certificate.both)
    outbound = ssl.create_default_context(cafile=str(authority.certificate))
    server = await asyncio.start_server(_answer_once, "localhost", 0, ssl=inbound)
    port = server.sockets[0].getsockname()[1]
    connection = await create_conn("localhost", port, security_protocol="SSL", ssl_context=outbound)
    async with asyncio.timeout(5):
        await connection.close()
    server.close()


async def _answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    await reader.readexactly(size)
    cast("asyncio.Transport", writer.transport).pause_reading()
    writer.write(NO_VERSIONS)
    await asyncio.Event().wait()
