"""The sandbox's mail server: accepts every message and saves it as a file.

Run as `python -m muster_local.mail PORT FOLDER [HOST]`.
"""

import asyncio
import itertools
import os
import signal
import sys
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

from muster_local.private import append
from muster_runtime.clock import SystemClock


class Keeper:
    """Saves each message in its own file; file names sort by arrival."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Save a message. Its final name appears only once the file is complete."""
        content = envelope.original_content or b""
        recipients = ", ".join(envelope.rcpt_tos)
        name = f"{SystemClock().now():%Y%m%dT%H%M%S%f}-{next(self._numbers)}.eml"
        unfinished = self._folder / f".{name}"
        with append(unfinished) as file:
            file.write(f"X-Envelope-To: {recipients}\r\n".encode() + content)
        os.rename(unfinished, self._folder / name)
        return "250 kept"


async def serve(port: int, folder: Path, host: str = "127.0.0.1") -> None:
    """Serve, by default on the loopback address, until SIGTERM."""
    loop = asyncio.get_running_loop()
    keeper = Keeper(folder)

    def session() -> SMTP:
        return SMTP(keeper, hostname="localhost", enable_SMTPUTF8=True, loop=loop)

    server = await loop.create_server(session, host, port)
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    async with server:
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
