"""The server's connections and their limit."""

import resource

from muster_runtime.http.connections import Connections, raise_file_limit


def test_counting_connections_changes_nothing_in_the_process() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] - 1, before[1]))
    try:
        Connections("sample", 10, 10, open_files=before[0])
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[0] - 1, before[1])
        assert raise_file_limit() == before[1]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
