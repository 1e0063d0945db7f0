"""Whether a release's code can run on a schema, judged only by the table of releases."""

from pathlib import Path

import pytest

from muster_contracts import SERVICES
from muster_operator.releases import Window, judge, read_releases
from tests.cluster import next_release

RELEASES = {
    "1.0": {"billing": Window("20260101", "20260102")},
    "1.1": {"billing": Window("20260103", "20260103")},
    "1.2": {"billing": Window("20260104", "20260104", ["20260104"])},
    "1.1.1": {"billing": Window("20260105", "20260105")},
}


@pytest.mark.parametrize(
    ("to", "applied", "reason", "ahead"),
    [
        ("1.0", ["20260101", "20260102"], "", []),
        ("1.0", ["20260101"], "", []),  # of the window only what it needs
        ("1.0", ["20260101", "20260102", "20260103"], "", ["20260103"]),
        ("1.1", ["20260101", "20260102"], "it needs 20260103: run the migrations of 1.1 first", []),
        ("1.1", ["20260101", "20260104"], "20260104 removed what it uses: restore", ["20260104"]),
        (
            "1.2",
            ["20260103", "20260105"],
            "it needs 20260104: run the migrations of 1.2 first",
            ["20260105"],
        ),  # of a branch
        ("1.1", [], "it has no schema there", []),
        ("1.1", ["20260103", "20260104"], "20260104 removed what it uses: restore", ["20260104"]),
        ("1.0", ["20260102", "20260103", "20260104"], "20260104 removed", ["20260103", "20260104"]),
        ("1.2", ["20260103", "20260104"], "", []),
        ("1.2", ["20260104", "20270101"], "20270101: unknown to this muster", ["20270101"]),
    ],
)
def test_a_release_is_judged_by_what_it_needs_and_what_was_removed(
    to: str, applied: list[str], reason: str, ahead: list[str]
) -> None:
    verdict = judge(RELEASES, to, "billing", applied)
    assert verdict.can_run == (not reason)
    assert verdict.reason.startswith(reason)
    assert (verdict.database, verdict.ahead) == (max(applied, default=None), ahead)
    assert verdict.pending == reason.startswith("it ")


def test_the_release_before_the_cluster_tests_next_one_can_run_on_its_schema(tmp_path: Path) -> None:
    table = tmp_path / "releases.toml"
    table.write_text(next_release.releases(), "utf-8")
    releases = read_releases(table)
    (*_, present, following) = releases
    for service in SERVICES:
        window = releases[following][service]
        verdict = judge(releases, present, service, [window.schema_min, window.schema_head])
        assert (verdict.can_run, verdict.ahead) == (True, [window.schema_head])
