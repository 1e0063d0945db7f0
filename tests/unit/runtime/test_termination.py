"""A command that gets SIGTERM ends like one that gets Ctrl-C.

In a container it is the first process, for which Linux ignores a signal without a handler.
"""

import os
import signal
import subprocess
import sys


def test_a_pod_that_waits_for_its_schema_ends_at_once() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    environment |= {"MUSTER_ENVIRONMENT": "sandbox", "MUSTER_POSTGRES_API_DSN": "postgresql://127.0.0.1:1/muster"}
    with subprocess.Popen(
        [sys.executable, "-m", "muster_notify", "wait-for-schema"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as waiting:
        assert waiting.stderr is not None
        assert waiting.stderr.readline().startswith("waiting: ")
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(timeout=10) == 130
        assert waiting.stderr.read() == ""
