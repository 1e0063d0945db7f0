"""Back-pressure: a full outbox refuses commands until the relay has published."""

import pytest

from muster_runtime.errors import TooManyRequests
from muster_runtime.messaging.backlog import Backlog


def test_commands_are_admitted_again_as_soon_as_the_relay_has_published() -> None:
    backlog = Backlog(limit=2)
    backlog.admit()
    backlog.rows = 2
    with pytest.raises(TooManyRequests, match="too many events are waiting"):
        backlog.admit()
    backlog.shrink(1)
    backlog.admit()


def test_rows_that_were_never_counted_may_be_published() -> None:
    backlog = Backlog(limit=2)
    backlog.shrink(5)
    assert backlog.rows == 0
