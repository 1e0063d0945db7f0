"""A test that runs alone waits for running tests, and later tests wait for it."""

import fcntl
from pathlib import Path
from threading import Thread

from tests.support import alone
from tests.support.eventually import eventually


async def test_nobody_passes_a_test_that_waits_to_run_alone(tmp_path: Path) -> None:
    order: list[str] = []

    def run(name: str, *, by_itself: bool) -> None:
        with alone.turn(tmp_path, alone=by_itself):
            order.append(name)

    def somebody_waits() -> bool:
        with (tmp_path / "entrance").open() as entrance:
            try:
                fcntl.flock(entrance, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    with alone.turn(tmp_path, alone=False):
        run("beside it", by_itself=False)
        waiting = Thread(target=run, args=("alone",), kwargs={"by_itself": True})
        waiting.start()
        await eventually(somebody_waits)
        later = Thread(target=run, args=("later",), kwargs={"by_itself": False})
        later.start()
        order.append("first")
    waiting.join()
    later.join()
    assert order == ["beside it", "first", "alone", "later"]
