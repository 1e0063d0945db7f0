"""CPU seconds and memory of this process and of others on the machine; and the process of an API."""

import asyncio
import ctypes
import gc
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

_START_SECONDS = 60


@dataclass
class Span:
    """Wall and CPU seconds of a block, and the process's peak memory in it."""

    wall: float = 0.0
    cpu: float = 0.0
    peak_mebibytes: float = 0.0


@contextmanager
def span() -> Iterator[Span]:
    """Measure a block in this process."""
    measured = Span()
    _give_back_memory()
    begin_peak(os.getpid())
    wall, cpu = time.perf_counter(), time.process_time()
    yield measured
    measured.wall = time.perf_counter() - wall
    measured.cpu = time.process_time() - cpu
    measured.peak_mebibytes = peak_mebibytes(os.getpid())


def _give_back_memory() -> None:
    """Keep an earlier block's use from counting as this one's."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def listener(address: str) -> psutil.Process:
    """The process that listens at an address, host:port or a URL."""
    port = urlsplit(address if "://" in address else f"//{address}").port
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
            return psutil.Process(connection.pid)
    raise LookupError(f"nothing on this machine listens at port {port}")


def cpu_seconds(process: psutil.Process) -> float:
    """CPU seconds of a process and its children, including children that have ended."""
    own = process.cpu_times()
    seconds: float = own.user + own.system + own.children_user + own.children_system
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            seconds += times.user + times.system
    return seconds


@asynccontextmanager
async def api_process(module: str, environment: Mapping[str, str]) -> AsyncIterator[psutil.Process]:
    """A service's process with the role `api` alone, at the address that its settings name."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, "serve", "--role", "api"), env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        await _answers(f"http://{environment['MUSTER_HTTP_HOST']}:{environment['MUSTER_HTTP_PORT']}/health/live")
        yield psutil.Process(process.pid)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _answers(url: str) -> None:
    async with asyncio.timeout(_START_SECONDS), httpx.AsyncClient() as client:
        while True:
            try:
                if (await client.get(url)).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)


def begin_peak(pid: int) -> None:
    """Reset the peak of a process's memory."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", "ascii")


def peak_mebibytes(pid: int) -> float:
    """A process's peak resident memory since it started, or since its peak was reset."""
    for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise LookupError(f"process {pid} has no memory")
