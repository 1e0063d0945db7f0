"""The faults of the long run, each at a random point of the live traffic: numbers 1, 6, 11 and 14 of docs/faults.md."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Mapping

from muster_local.programs import SERVICES
from tests.faults.live.stage import Stage
from tests.faults.servers import Process
from tests.support.eventually import eventually

# The services that have something to relay at any time; one that has not for so long is killed all the same.
RELAYING = ("enrollment", "entitlements")
IDLE_SECONDS = 10

Kill = Callable[[Stage, random.Random], Awaitable[None]]


async def service(stage: Stage, dice: random.Random) -> None:
    """A service is killed, wherever it is at work: 1 and 14."""
    name = dice.choice(SERVICES)
    stage.start_anew(name)
    await stage.ready(name)


async def relay(stage: Stage, dice: random.Random) -> None:
    """A service kills itself between Kafka's acknowledgement and its delete: 1."""
    name = dice.choice(RELAYING)
    dying = stage.start_anew(name, ["--die-before", "delete", "--nth", str(dice.randint(1, 5))])
    try:
        await eventually(lambda: not dying.runs, timeout=IDLE_SECONDS)
    except AssertionError:
        stage.start_anew(name)
    await eventually(lambda: stage.services[name] is not dying)
    await stage.ready(name)


async def broker(stage: Stage, dice: random.Random) -> None:
    """The broker is killed: 6."""
    stage.kafka.kill()
    await asyncio.sleep(dice.random() * 3)
    await stage.kafka.up()
    await stage.ready()


async def postgres(stage: Stage, dice: random.Random) -> None:
    """Postgres is shut down at once and started again: 11."""
    stage.postgres.send(signal.SIGQUIT)
    await eventually(lambda: not stage.postgres.runs, timeout=30)
    await asyncio.sleep(dice.random() * 2)
    await stage.postgres.up()
    await stage.ready()


async def rebalance(stage: Stage, dice: random.Random) -> None:
    """A second consumer of a service joins and is killed or sent away: 14."""
    name = dice.choice(SERVICES)
    joining = stage.start_beside(name)
    await asyncio.sleep(2 + dice.random() * 4)
    if dice.random() < 0.5:
        joining.kill()
    else:
        await asyncio.to_thread(_leave, joining)
    await stage.ready(name)


def _leave(process: Process) -> None:
    process.stop(60)


# Each with its weight.
KILLS: Mapping[Kill, int] = {service: 30, relay: 25, broker: 15, postgres: 15, rebalance: 15}
