"""The benchmarks' report: a page is rewritten between its markers, with a plot of each varied measurement."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench.plot import Line, draw
from tests.bench.report import BEGIN, END, Measurement, write_json, write_page

SVG = "{http://www.w3.org/2000/svg}"

RESULTS = {
    "relay": [Measurement("relay", 80_000, 100_000, "events/s", "0.8 of it", 1.5, 1.0, 120)],
    "workforce": [
        Measurement("CPU a seat: all", 12, 10, "µs", "within 1.3", over="seats", points=((1000, 10), (100_000, 12))),
        Measurement("peak memory: notify", 99, 90, "MiB", "", over="seats", points=((1000, 90), (100_000, 99))),
    ],
}


def test_a_page_is_rewritten_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"# Before\n\n{BEGIN}\nold figures\n{END}\n\nAfter\n", "utf-8")
    write_page(RESULTS, page)
    written = page.read_text("utf-8")
    assert "| relay | 80,000 | 100,000 | 0.8 | events/s | 0.8 of it | 1.5 | 1 | 120 |" in written
    assert "old figures" not in written
    assert written.startswith(f"# Before\n\n{BEGIN}\n")
    assert written.endswith(f"{END}\n\nAfter\n")
    assert sorted(file.name for file in (tmp_path / "performance").iterdir()) == ["workforce-1.svg", "workforce-2.svg"]
    assert "![workforce](performance/workforce-2.svg)" in written
    write_page(RESULTS, page)
    assert page.read_text("utf-8") == written


def test_figures_that_were_not_measured_again_stay(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"{BEGIN}\n{END}\n", "utf-8")
    write_page(RESULTS, page)
    write_page({"relay": [Measurement("relay", 90_000, 100_000, "events/s", "")]}, page)
    written = page.read_text("utf-8")
    assert "| relay | 90,000 |" in written
    assert "| relay | 80,000 |" not in written
    assert "| peak memory: notify | 99 |" in written
    assert written.count("### ") == 2


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Mine\n", "utf-8")
    with pytest.raises(ValueError, match="has no lines"):
        write_page(RESULTS, page)
    assert page.read_text("utf-8") == "# Mine\n"


def test_json_has_the_ratio_and_the_machine(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    write_json(RESULTS, file)
    written = json.loads(file.read_text("utf-8"))
    assert [line["ratio"] for line in written["measurements"]] == [0.8, 1.2, 1.1]
    assert written["environment"]["cores"]


def test_a_plot_is_well_formed_and_stays_within_its_axes() -> None:
    drawn = draw([Line("a < b", [(1000, 3), (100_000, 7)])], x_title="seats", y_title="µs")
    svg = ElementTree.fromstring(drawn)  # noqa: S314
    [line] = [path.attrib["d"] for path in svg.iter(f"{SVG}path") if path.attrib.get("fill") == "none"]
    points = [tuple(float(number) for number in point.split()) for point in line.lstrip("M").split("L")]
    assert [x for x, _ in points] == [64.0, 512.0]
    assert 28.0 <= points[1][1] < points[0][1] <= 312.0
    texts = [text.text for text in svg.iter(f"{SVG}text")]
    assert {"a < b", "seats", "µs", "1k", "100k", "8"} <= set(texts)
