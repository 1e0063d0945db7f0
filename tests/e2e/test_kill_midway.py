"""Each service is killed once in the middle of the year; the books still balance."""

import os
import signal
from pathlib import Path

from muster_local.demo.proof import LINES
from muster_local.stack import Stack
from tests.e2e.demonstration import marks, playing

# A scene's text, and the service that is killed when the scene begins.
KILLS = {
    "GSA, HUD, SBA, USAID, ED, NRC, OPM, NSF enroll": "enrollment",
    "FDIC, SEC, NARA, EEOC, CFPB, FCC, FTC, NLRB enroll": "entitlements",
    "DOI, DOT, DOC, NASA, DOE, EPA, STATE, DOL pay": "billing",
    "The outside system is back": "notify",
}


def test_every_service_may_be_killed_midway(tmp_path: Path, postgres: str, kafka_bootstrap: str) -> None:
    home = tmp_path / "home"
    output = ""
    restarts: dict[str, int] = {}
    with playing(home, postgres, kafka_bootstrap) as demonstration:
        assert demonstration.stdout is not None
        for line in demonstration.stdout:
            output += line
            for service in [service for words, service in KILLS.items() if words in line]:
                os.kill(Stack(home).pids()[service], signal.SIGKILL)
            restarts |= {name: process.restarts for name, process in Stack(home).state().processes.items()}
    assert demonstration.returncode == 0, output
    assert marks(output) == ["✓"] * len(LINES), output
    assert {service: restarts[service] for service in KILLS.values()} == dict.fromkeys(KILLS.values(), 1)
