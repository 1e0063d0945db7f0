"""What a process says of itself."""

import httpx

from tests.faults.servers import Process


async def health(process: Process) -> bool:
    """Whether a process says that it can do its work; an AssertionError says why not."""
    assert process.runs, f"{process.program.name} has ended: {process.exit_status}\n{process.said()[-3000:]}"
    reasons = await reasons_not_ready(process)
    assert not reasons, f"{process.program.name} is not ready: {reasons}"
    return True


async def reasons_not_ready(process: Process) -> list[str]:
    """What the process itself says; one that cannot be reached says so."""
    try:
        async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
            body = (await client.get(f"{process.program.address}/health/ready")).json()
    except httpx.TransportError as error:
        return [f"it does not answer: {type(error).__name__}"]
    reasons: list[str] = body["reasons"]
    return reasons


async def readiness_reason(process: Process, words: str) -> str:
    """The reason with these words for which a process is not ready; an AssertionError shows what it says instead."""
    reasons = await reasons_not_ready(process)
    found = [reason for reason in reasons if words in reason]
    assert found, f"{process.program.name} does not say {words!r}: {reasons}"
    return found[0]
