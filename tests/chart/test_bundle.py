"""Besides the images, the bundle has what its reader needs: the chart, the examples, and every operator's page."""

import re
from pathlib import PurePosixPath
from posixpath import normpath

import pytest

from infra.chart.generate import CHART, ROOT
from infra.images.bundle import pages
from tests.chart.rendering import EXAMPLES

CONTENTS = pages()
FOR_OPERATORS = [name for name in CONTENTS if re.fullmatch(r"infra/(chart|runbooks)/[\w-]+\.md", name)]


def test_the_bundle_has_the_chart_where_the_pages_commands_look_for_it() -> None:
    chart = {str(file.relative_to(ROOT)) for file in CHART.rglob("*") if file.is_file()}
    assert chart | {f"infra/chart/examples/{name}.yaml" for name in EXAMPLES} <= set(CONTENTS)


@pytest.mark.parametrize("name", FOR_OPERATORS)
def test_every_link_of_a_page_leads_into_the_bundle(name: str) -> None:
    folders = {str(folder) for path in CONTENTS for folder in PurePosixPath(path).parents}
    for target in re.findall(r"\]\(([^)#\s]+)", CONTENTS[name].decode()):
        if not target.startswith("https:"):
            assert normpath(PurePosixPath(name).parent / target) in {*CONTENTS, *folders}, target


def test_the_bundles_instructions_name_its_contents() -> None:
    text = CONTENTS["README.md"].decode()
    named = re.findall(r"infra/[\w./-]*\w", text)
    assert {"infra/chart/README.md", "infra/chart/muster", "infra/runbooks/README.md"} <= set(named)
    for path in named:
        assert any(each == path or each.startswith(f"{path}/") for each in CONTENTS), path
    assert "VERSION" not in text
