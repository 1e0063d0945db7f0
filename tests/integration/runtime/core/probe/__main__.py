"""The probe as a separate process, which can be told to kill itself where a fault does the most harm."""

import os
import signal
import sys
from typing import Any, NoReturn

from muster_runtime import cli
from muster_runtime.messaging.consumer import Consumer
from muster_runtime.messaging.lane import Lane
from tests.integration.runtime.core.probe.service import SCHEMA


async def _die(*_: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("not reached")


match os.environ.get("PROBE_DIES_BEFORE"):
    case "delete":
        setattr(Lane, "_delete", _die)  # noqa: B010
    case "kafka commit":
        setattr(Consumer, "_commit", _die)  # noqa: B010
    case None:
        pass
    case other:
        sys.exit(f"no such point: {other}")

cli.run("tests.integration.runtime.core.probe.service", SCHEMA)
