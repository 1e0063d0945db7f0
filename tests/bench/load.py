"""Load on an HTTP server, from its own process: `python -m tests.bench.load`, with a Load as JSON on its input.

The client needs about ten microseconds per request, so that the measurement is of the server.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import cast

import uvloop


@dataclass(frozen=True)
class Load:
    """GETs of the paths in turn, for this many seconds; with bodies, POSTs of each to its path.

    Without a rate, each connection sends its next request when it has its answer. With one, requests
    have fixed instants, whatever became of earlier ones, and their time counts from those instants.
    """

    host: str
    port: int
    token: str
    paths: Sequence[str]
    connections: int
    seconds: float
    per_second: float | None = None
    bodies: Sequence[str] | None = None


@dataclass(frozen=True)
class Outcome:
    """Answers per second, and how long each took in milliseconds."""

    rate: float
    milliseconds: Sequence[float]


async def put_on(load: Load) -> Outcome:
    """Generate the load in a separate process. Raises RuntimeError if an answer was not 200."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.load", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate(json.dumps(asdict(load)).encode())
    if process.returncode:
        raise RuntimeError("the load could not be put on")
    return Outcome(**json.loads(output))


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[None] | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class only looks like one

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server has closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, parted, body = self._received.partition(b"\r\n\r\n")
        if not parted:
            return
        _, _, rest = head.lower().partition(b"content-length:")
        if len(body) < int(rest.split(b"\r\n", 1)[0]):
            return
        answer, self._received = self._answer, b""
        assert answer is not None
        if head.startswith(b"HTTP/1.1 200 "):
            answer.set_result(None)
        else:
            answer.set_exception(RuntimeError(f"{head.decode()}\n{body.decode()}"))

    async def exchange(self, request: bytes) -> None:
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await self._answer


def _requests(load: Load) -> list[bytes]:
    head = f"HTTP/1.1\r\nhost: {load.host}\r\nauthorization: Bearer {load.token}\r\n"
    if load.bodies is None:
        return [f"GET {path} {head}\r\n".encode() for path in load.paths]
    head += "content-type: application/json\r\ncontent-length: "
    return [
        f"POST {path} {head}{len(body.encode())}\r\n\r\n{body}".encode()
        for path, body in zip(load.paths, load.bodies, strict=True)
    ]


async def _put_on(load: Load) -> Outcome:
    requests = itertools.cycle(_requests(load))
    numbers = itertools.count()
    milliseconds: list[float] = []
    loop = asyncio.get_running_loop()
    start = time.perf_counter()

    async def work() -> None:
        transport, connection = await loop.create_connection(_Connection, load.host, load.port)
        while True:
            due = time.perf_counter()
            if load.per_second is not None:
                due = start + next(numbers) / load.per_second
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if due > start + load.seconds:
                break
            await connection.exchange(next(requests))
            milliseconds.append((time.perf_counter() - due) * 1000)
        transport.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(load.connections):
            group.create_task(work())
    return Outcome(len(milliseconds) / (time.perf_counter() - start), milliseconds)


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(_put_on(Load(**json.load(sys.stdin)))))))
