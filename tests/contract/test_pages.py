"""The pages for people: their Python runs, and their links and paths exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = ROOT / "contracts"

_FOLDERS = (".", "contracts", "docs", "infra/*", "services/*")
PAGES = [
    pytest.param(page, id=str(page.relative_to(ROOT)))
    for folder in _FOLDERS
    for page in sorted(ROOT.glob(f"{folder}/*.md"))
]


def test_the_python_of_the_readme_runs() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (CONTRACTS / "README.md").read_text("utf-8"), re.DOTALL)
    exec(compile(program, "README.md", "exec"), {})  # noqa: S102 the page's own program


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    for link in re.findall(r"(?:\]\(|^\[[^]]+\]: )([^)\s]+)", text, re.MULTILINE):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            assert anchor in {_slug(heading) for heading in headings}, link


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_every_path_from_the_root_exists(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    paths = re.findall(r"`((?:contracts|docs|infra|services|tests)/[^`\s:]+)", text)
    assert [path for path in paths if not _exists(path)] == []


def test_every_path_of_the_contributors_page_exists() -> None:
    """A path is from the root or, without a folder of the root, from a service's package; SERVICE is any service."""
    text = re.sub(r"```.*?```", "", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), flags=re.DOTALL)
    paths = [code for code in re.findall(r"`([^`\s]+)`", text) if re.search(r"\w/|\.(py|toml|md|typed)$", code)]
    assert len(paths) > 40  # a search that finds none proves nothing
    assert [path for path in paths if not _exists(path)] == []


def _exists(path: str) -> bool:
    pattern = path.replace("SERVICE", "*").rstrip("/")
    forms = (pattern, pattern.removesuffix(".py"))  # a package of the same name may replace a file
    folders = (".", "services/*/muster_*")
    return any(next(ROOT.glob(f"{folder}/{form}"), None) for folder in folders for form in forms)


@pytest.mark.parametrize("page", PAGES)
def test_no_command_shows_a_secret_to_other_users_of_the_machine(page: Path) -> None:
    """Everyone sees a program's arguments, and Postgres' log may quote a statement."""
    text = page.read_text("utf-8")
    assert re.findall(r"(?:-H|--header) \S?Authorization.*|\bpassword '.*|--add-config\s.*password=.*", text) == []
    for block in re.findall(r"```sh.*?\n(.*?)```", text, re.DOTALL):
        writes = re.search(r"pg_dump|openssl .*>", block)
        assert not writes or "umask 077" in block[: writes.start()], block


@pytest.mark.parametrize("page", PAGES)
def test_curl_has_no_option_that_the_oldest_supported_systems_lack(page: Path) -> None:
    """RHEL 8 has curl 7.61."""
    assert re.findall(r"curl .*(?:--json|--fail-with-body).*", page.read_text("utf-8")) == []
