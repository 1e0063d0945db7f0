"""A client in a process: `python -m tests.integration.entitlements.following BOOTSTRAP PREFIX NOW`.

Each line of its input is a JSON list of people; its output has a line with verdict and reason for each of them.
"""

import asyncio
import json
import sys
from contextlib import suppress
from datetime import datetime

from muster_entitlements_client import EntitlementsClient, NotReady
from tests.support.eventually import eventually


async def main(bootstrap: str, prefix: str, now: str) -> None:
    """Answer until the input ends."""
    at = datetime.fromisoformat(now)
    async with EntitlementsClient({"bootstrap_servers": bootstrap}, topic_prefix=prefix, now=lambda: at) as client:
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked = json.loads(line)
            await client.ready()

            def answers(asked: list[str] = asked) -> str | None:
                with suppress(NotReady):  # while it reads another log
                    return json.dumps([client.check(each, "deep-research", agency_id="NASA")[:2] for each in asked])
                return None

            print(await eventually(answers), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
