"""A child process that writes its output to a log and does not outlive its parent."""

import asyncio
import ctypes
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from muster_local.private import append

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

_STOP_SECONDS = 30
_LINES_KEPT = 10


@dataclass(frozen=True)
class Program:
    """A program to run. `address` is where it answers, in its own protocol's format."""

    name: str
    command: Sequence[str]
    address: str
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    user: str | None = None  # also its group; None: the parent's


class Child:
    """A program's process; it can be restarted after it ends."""

    def __init__(self, program: Program, log: Path) -> None:
        self.program = program
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process ID; None if it does not run."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        with append(self._log) as output:
            self._process = await asyncio.create_subprocess_exec(
                *self.program.command,
                env=dict(self.program.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                user=self.program.user,
                group=self.program.user,
                extra_groups=None if self.program.user is None else [],
                cwd="/",
                preexec_fn=dies_with_parent(self.program.stop_signal),
            )

    async def wait(self) -> str:
        """Wait until the process exits; return how, such as `killed by SIGKILL` or `exited with status 1`."""
        assert self._process is not None
        code = await self._process.wait()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"

    async def stop(self) -> None:
        """Send the stop signal; kill the process if it still runs after 30 s."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(self.program.stop_signal)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def last_lines(self) -> list[str]:
        return last_lines(self._log)


def last_lines(log: Path) -> list[str]:
    """The last 10 lines of a log, from its last 8 KiB."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        return file.read().decode("utf-8", "replace").splitlines()[-_LINES_KEPT:]


def dies_with_parent(stop_signal: signal.Signals) -> Callable[[], None]:
    """A `preexec_fn` that asks the kernel to send the child `stop_signal` when its parent ends for any reason."""

    def ask() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, stop_signal)

    return ask
