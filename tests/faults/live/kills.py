"""The faults of the long run, each at a random point of the live traffic: numbers 1, 6, 11 and 14 of docs/faults.md."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Mapping

from muster_contracts import SERVICES
from tests.faults.live.stage import READY_SECONDS, REPLICAS, Stage
from tests.faults.readiness import health
from tests.support.eventually import eventually

# The services that have something to relay at any time; one that relays nothing for this long is killed anyway.
RELAYING = ("enrollment", "entitlements")
IDLE_SECONDS = 10

LEAVE_SECONDS = 60

# The result of a member that leaves: it is part of the storm of rebalances, and does not count as a kill.
LEFT = "a member left at SIGTERM"

# Returns the result, in words that are counted.
Kill = Callable[[Stage, random.Random], Awaitable[str]]


async def service(stage: Stage, dice: random.Random) -> str:
    """A service is killed, whatever it is doing: 1 and 14."""
    name = dice.choice(SERVICES)
    stage.restart(name, dice.randrange(REPLICAS))
    await stage.ready(name)
    return "a service"


async def relay(stage: Stage, dice: random.Random) -> str:
    """A service kills itself between Kafka's acknowledgment and its delete: 1. The replica with the lease dies."""
    name = dice.choice(RELAYING)
    breaking = ["--die-before", "delete", "--nth", str(dice.randint(1, 5))]
    dying = [stage.restart(name, replica, breaking) for replica in range(REPLICAS)]
    came_of_it = "a relay before its delete"
    try:
        await eventually(lambda: not all(process.runs for process in dying), timeout=IDLE_SECONDS)
    except AssertionError:
        came_of_it = "a relay that idled"
    for replica, process in enumerate(dying):
        if process.runs:
            stage.restart(name, replica)
    await eventually(lambda: not set(stage.services[name]) & set(dying))
    await stage.ready(name)
    return came_of_it


async def broker(stage: Stage, dice: random.Random) -> str:
    """The broker is killed: 6."""
    stage.kafka.kill()
    await asyncio.sleep(dice.random() * 3)
    await stage.kafka.up()
    await stage.ready()
    return "the broker"


async def postgres(stage: Stage, dice: random.Random) -> str:
    """Postgres is shut down at once and started again: 11."""
    stage.postgres.send(signal.SIGQUIT)
    await eventually(lambda: not stage.postgres.runs, timeout=30)
    await asyncio.sleep(dice.random() * 2)
    await stage.postgres.up()
    await stage.ready()
    return "Postgres"


async def rebalance(stage: Stage, dice: random.Random) -> str:
    """One more consumer of a service joins and is killed or stopped: 14."""
    name = dice.choice(SERVICES)
    joining = stage.start_beside(name)
    await eventually(lambda: health(joining), timeout=READY_SECONDS)
    await asyncio.sleep(dice.random() * 4)
    is_killed = dice.random() < 0.5
    if is_killed:
        joining.kill()
    else:
        await asyncio.to_thread(joining.stop, LEAVE_SECONDS)
    await stage.ready(name)
    return "a member of a group" if is_killed else LEFT


# Each with its weight.
KILLS: Mapping[Kill, int] = {service: 30, relay: 25, broker: 15, postgres: 15, rebalance: 15}
