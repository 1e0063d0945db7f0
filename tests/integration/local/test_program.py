"""The demonstration's client: a command that is lost on the way is sent again under its own key."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from muster_local.demo.program import ProgramClient, Unexpected

PATH = "agencies/NASA/enrollments"
LOST = b""
AWAY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
CREATED = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}"
REFUSED = b"HTTP/1.1 409 Conflict\r\ncontent-length: 14\r\n\r\nenrolled twice"


class Service:
    """Gives one answer after the other, and closes the connection after each."""

    def __init__(self, *answers: bytes) -> None:
        self.keys: list[str] = []
        self._answers = iter(answers)

    @asynccontextmanager
    async def program(self) -> AsyncIterator[ProgramClient]:
        """A client of this service."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, ProgramClient({"enrollment": url}, "token") as program:
            yield program

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().splitlines()
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        await reader.readexactly(int(headers["content-length"]))
        self.keys.append(headers["idempotency-key"])
        writer.write(next(self._answers))
        await writer.drain()
        writer.close()


async def test_a_command_is_sent_under_one_key_until_it_is_answered() -> None:
    service = Service(LOST, AWAY, CREATED)
    async with service.program() as program:
        await program.post("enrollment", PATH, {"seats": 1})
        assert program.commands == {"enrollment": 1}
    assert len(service.keys) == 3
    assert len(set(service.keys)) == 1


async def test_two_commands_have_two_keys() -> None:
    service = Service(CREATED, CREATED)
    async with service.program() as program:
        await program.post("enrollment", PATH)
        await program.post("enrollment", PATH)
        assert program.commands == {"enrollment": 2}
    assert len(set(service.keys)) == 2


async def test_an_unexpected_answer_ends_the_story() -> None:
    async with Service(REFUSED).program() as program:
        with pytest.raises(Unexpected, match="409 enrolled twice, not 201"):
            await program.post("enrollment", PATH)
        assert program.commands == {"enrollment": 0}
