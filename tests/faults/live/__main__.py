"""`python -m tests.faults.live --kills N [--seed S]`: kill at random, judge at every checkpoint, write the report."""

import argparse
import asyncio
import os
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from muster_local.demo.cast import cast
from tests.faults.live.kills import KILLS, LEFT
from tests.faults.live.life import Life, register_without_headcounts
from tests.faults.live.stage import Stage
from tests.faults.live.verdict import reach
from tests.faults.report import Run, write_run

CHECKPOINT_KILLS = 20
NEW_AGENCIES = 4


async def run(kills: int, seed: int, folder: Path) -> Run:
    """The whole run; it ends early at the first difference.

    Each concurrent task has its own dice: what one draws does not depend on how quick another is.
    """
    dice = random.Random(f"{seed}/kills")
    agencies = cast(1000)
    random.Random(f"{seed}/cast").shuffle(agencies)
    made: Counter[str] = Counter()
    left = 0
    started = time.monotonic()
    async with Stage(folder) as stage:
        await stage.program.upload("enrollment", "register", register_without_headcounts(), "text/tab-separated-values")
        webhook = await stage.program.post("notify", "agencies/*/webhooks", {"url": f"{stage.receiver.url}/"})
        await stage.receiver.trust(webhook["secret"])
        lives: list[Life] = []
        while True:
            newcomers = [
                Life(stage.program, agency, random.Random(f"{seed}/{agency.id}")) for agency in agencies[:NEW_AGENCIES]
            ]
            agencies = agencies[NEW_AGENCIES:]
            over = asyncio.Event()
            async with asyncio.TaskGroup() as living:
                for life in newcomers:
                    living.create_task(_begin(life, over))
                for life in lives:
                    living.create_task(life.go_on(over))
                checkpoint = min(made.total() + CHECKPOINT_KILLS, kills)
                while made.total() < checkpoint:
                    await asyncio.sleep(dice.random() * 2)
                    (kill,) = dice.choices(list(KILLS), list(KILLS.values()))
                    at = time.monotonic()
                    came_of_it = await kill(stage, dice)
                    if came_of_it == LEFT:
                        left += 1
                    else:
                        made[came_of_it] += 1
                    _say(f"{made.total():4} {came_of_it:26} ready again after {time.monotonic() - at:5.1f} s")
                over.set()
            lives = (lives + newcomers)[-2 * NEW_AGENCIES :]
            evidence, differences = await reach(stage)
            distinct = len({fact.envelope.id for fact in evidence.facts})
            repeated = len(evidence.facts) - distinct
            _say(f"     {distinct} events, {repeated} repeated; {differences or 'no difference'}")
            if differences or made.total() >= kills:
                return Run(
                    seed=seed,
                    kills=dict(made),
                    left=left,
                    minutes=round((time.monotonic() - started) / 60, 1),
                    agencies=len({fact.envelope.agency_id for fact in evidence.facts}),
                    commands=sum(stage.program.commands.values()),
                    events=distinct,
                    repeated=repeated,
                    deliveries=len(evidence.deliveries),
                    restarts=stage.restarts,
                    differences=differences,
                )


async def _begin(life: Life, over: asyncio.Event) -> None:
    await life.enroll()
    await life.go_on(over)


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """Run as the arguments say; the exit status is 1 if a difference was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("FAULT_SEED") or secrets.randbelow(10**9)))
    options = parser.parse_args()
    _say(f"FAULT_SEED={options.seed}")
    with tempfile.TemporaryDirectory(prefix="muster-faults-") as folder:
        report = asyncio.run(run(options.kills, options.seed, Path(folder)))
    write_run(report)
    return 1 if report.differences else 0


if __name__ == "__main__":
    sys.exit(main())
