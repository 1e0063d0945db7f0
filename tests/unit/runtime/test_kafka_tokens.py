"""The tokens with which a process logs in to Kafka: an answer that is not a token stops no process."""

import asyncio

import pytest
from aiokafka.errors import AuthenticationFailedError
from pydantic import SecretStr

from muster_runtime.messaging.credentials import TokenSource

WORTHLESS = [b"", b"[]", b"null", b'"token"', b"{}", b'{"access_token":"a","expires_in":[]}', b"[" * 100_000]


async def test_an_answer_that_is_not_a_token_is_refused_with_a_reason() -> None:
    answer = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        source = TokenSource(f"http://127.0.0.1:{port}/token", "muster", SecretStr("a secret of the client"), "")
        for worthless in WORTHLESS:
            answer = worthless
            with pytest.raises(AuthenticationFailedError, match="no token from"):
                await source.token()
        answer = b'{"access_token":"a","expires_in":60}'
        assert await source.token() == "a"
