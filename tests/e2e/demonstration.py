"""The demonstration as a user starts it with `muster demo`, on the tests' servers."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from muster_contracts import topics
from muster_local.home import Home, State
from muster_local.servers import kafka_at
from muster_operator.databases.provisioning import drop
from muster_operator.topics import delete_topics

SEATS = 500


@contextmanager
def playing(home: Path, postgres: str, kafka_bootstrap: str) -> Iterator["subprocess.Popen[str]"]:
    """The running demonstration; at the end of the block, it is stopped and its traces on the servers are deleted."""
    process = subprocess.Popen(
        [sys.executable, "-m", "muster_operator", "demo", f"--seats={SEATS}", f"--home={home}"],
        env={**os.environ, "MUSTER_POSTGRES_DSN": postgres, "MUSTER_KAFKA_BOOTSTRAP": kafka_bootstrap},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
        asyncio.run(_delete(Home(home).read_state(), postgres, kafka_bootstrap))


async def _delete(state: State, postgres: str, kafka_bootstrap: str) -> None:
    if state.topic_prefix:
        await drop(postgres, urlsplit(state.admin_dsn).path.strip("/"))
        await delete_topics(kafka_at(kafka_bootstrap), [state.topic_prefix + topic for topic in topics()])


def marks(output: str) -> list[str]:
    """The mark of each line of the proof."""
    rows = (line.split("│") for line in output.splitlines())
    return [cells[1].strip() for cells in rows if len(cells) > 3 and cells[1].strip()]
