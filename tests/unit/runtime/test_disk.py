"""A disk that was found full is full until a look finds room."""

import asyncpg
import pytest

from muster_runtime.database.disk import Disk


def test_a_write_that_needs_no_room_does_not_prove_that_there_is_room() -> None:
    disk = Disk()
    with pytest.raises(asyncpg.DiskFullError), disk.watched():
        raise asyncpg.DiskFullError("no space left on device")
    with disk.watched():
        pass
    assert disk.is_full
