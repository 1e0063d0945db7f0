"""Runs the `muster` command like a user, and an operator's first steps with it."""

import json
import subprocess
import sys
from typing import Any

from muster_local.stack import Stack


def muster(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command like a user, in a process."""
    return subprocess.run(
        [sys.executable, "-m", "muster_operator", *arguments], capture_output=True, text=True, check=False
    )


async def an_agency_joins_and_leaves(stack: Stack) -> None:
    """Enroll and withdraw an agency with only the operator's command; a sandbox already has a register."""

    def agency(*arguments: str, status: int = 0) -> Any:
        done = muster("agency", *arguments, "--json", f"--home={stack.home}")
        assert done.returncode == status, done.stdout + done.stderr
        return json.loads(done.stdout) if status == 0 else done.stderr

    listed = [item["id"] for item in agency("list")["items"]]
    assert len(listed) > 50
    assert "NASA" in listed
    contact = ("--contact-name=Ada Administrator", "--contact-email=ada@nasa.gov")
    assert agency("enroll", "NASA", "--seats=5", *contact)["state"] == "submitted"
    validity = ("--valid-from=2025-01-01T00:00:00Z", "--valid-until=2099-01-01T00:00:00Z")
    agency("authorize", "NASA", "--number=ATU-1", *validity)
    signer = ("--signer-name=Ada Administrator", "--signer-email=ada@nasa.gov", f"--document={__file__}")
    agency("accept", "NASA", "--terms-version=2025-08", *signer)
    shown = agency("show", "NASA")
    assert (shown["enrollment"]["state"], shown["authorizations"][0]["number"]) == ("active", "ATU-1")
    assert agency("withdraw", "NASA", "--reason=reorganized")["state"] == "withdrawn"
    assert "muster: enrollment: " in agency("withdraw", "NASA", "--reason=again", status=4)
    assert "NOBODY" in agency("show", "NOBODY", status=3)
