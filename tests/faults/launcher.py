"""Runs a program that can be told to break: `python -m tests.faults.launcher [options] -m MODULE ARGUMENTS`.

`--mutation NAME` removes one of the runtime's protections; `--die-before POINT` and the like make the process end,
freeze or go wrong where that does the most harm.
"""

import argparse
import asyncio
import os
import runpy
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from faststream.kafka import KafkaBroker

from muster_runtime.database.transactions import UnitOfWork
from muster_runtime.http.tenancy import Commands
from muster_runtime.messaging import parking
from muster_runtime.messaging.applier import Applier
from muster_runtime.messaging.consumer.kept_offsets import KeptOffsets
from muster_runtime.messaging.lane import Lane
from muster_runtime.messaging.producers import Producer
from tests.faults import mutations

# Where a process can be told to break: at the call of one of these.
POINTS: dict[str, tuple[Any, str]] = {
    "send": (Lane, "_send"),
    "delete": (Lane, "_delete"),
    "apply": (Applier, "apply"),
    "last sequence": (UnitOfWork, "flush"),  # which writes it, in a consumer
    "keep": (KeptOffsets, "keep"),
    "kafka commit": (KeptOffsets, "commit"),
    "unpark": (parking, "remove"),
    "reply": (Commands, "execute"),
}

Act = Callable[..., Awaitable[None]]


async def die(*_: Any) -> None:
    """Die at once, without time to clean up."""
    os.kill(os.getpid(), signal.SIGKILL)


async def stop(*_: Any) -> None:
    """Freeze until somebody sends SIGCONT; then leave time to notice the state of the connections."""
    os.kill(os.getpid(), signal.SIGSTOP)
    await asyncio.sleep(0.1)


async def skip_sequence(_: Lane, producer: Producer, *__: Any) -> None:
    """Give the producer's next batches sequences that the broker does not expect."""
    numbers = producer._kafka._txn_manager._sequence_numbers
    for partition in list(numbers):
        numbers[partition] += 1000


def break_at(point: str, nth: int, act: Act, *, after: bool = False) -> None:
    """Do something harmful at the n-th call of a point: before it, or once it is done."""
    owner, name = POINTS[point]
    original = getattr(owner, name)
    calls = 0

    async def broken(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        harmful = calls == nth
        if harmful and not after:
            await act(*arguments)
        answer = await original(*arguments, **options)
        if harmful and after:
            await act(*arguments)
        return answer

    setattr(owner, name, broken)


def allow_between_polls(milliseconds: int) -> None:
    """Have the group expel a consumer that has not polled for this long."""
    original = KafkaBroker.subscriber

    def subscriber(self: KafkaBroker, *topics: Any, **options: Any) -> Any:
        return original(self, *topics, **options, max_poll_interval_ms=milliseconds)

    setattr(KafkaBroker, "subscriber", subscriber)  # noqa: B010 - a plain assignment to a method is a type error


def main() -> None:
    """Break what the options say, then run the program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mutation", choices=mutations.MUTATIONS)
    parser.add_argument("--die-before", choices=POINTS)
    parser.add_argument("--die-after", choices=POINTS)
    parser.add_argument("--stop-before", choices=POINTS)
    parser.add_argument("--skip-sequence-before", choices=["send"])
    parser.add_argument("--nth", type=int, default=1)
    parser.add_argument("--max-poll-interval", type=int, metavar="MILLISECONDS")
    parser.add_argument("-m", dest="program", nargs=argparse.REMAINDER, required=True)
    options = parser.parse_args()
    if options.die_before:
        break_at(options.die_before, options.nth, die)
    if options.die_after:
        break_at(options.die_after, options.nth, die, after=True)
    if options.stop_before:
        break_at(options.stop_before, options.nth, stop)
    if options.skip_sequence_before:
        break_at(options.skip_sequence_before, options.nth, skip_sequence)
    if options.max_poll_interval:
        allow_between_polls(options.max_poll_interval)
    # Last, so that a mutation may call a point that breaks elsewhere than the original does.
    if options.mutation:
        mutations.MUTATIONS[options.mutation]()
    module, *arguments = options.program
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
