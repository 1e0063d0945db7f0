"""The subscribers' file: what it may contain, what it must contain, and how it is written."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from muster_contracts import Deprecation, Topic, topics
from muster_contracts.billing import TermStarted
from muster_operator.cli import app
from muster_operator.failures import BadInput, NotFound
from muster_operator.subscribers import registry as module
from muster_operator.subscribers.enrolling import password_for
from muster_operator.subscribers.registry import Registry, checked

TERM, SEAT, PEOPLE = "muster.billing.term", "muster.entitlements.seat", "muster.entitlements.directory"
FACTS: dict[str, Any] = {
    "owner": "Treasury",
    "contact": "data@treasury.example",
    "purpose": "A dashboard",
    "review": date(2099, 1, 1),
    "topics": [TERM],
    "reads": [TermStarted.event_type],
}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": "billing"}, "name: billing is reserved"),
        ({"name": "Dash Board"}, "name: 'Dash Board': must match the pattern"),
        ({"owner": " "}, "owner: ' ': must not be empty"),
        ({"owner": None}, "owner: None: must be a string"),
        ({"review": "soon"}, "review: 'soon': must be a date such as"),
        ({"contcat": "x"}, "contcat: 'x': must be left out"),
        ({"topics": [], "reads": []}, "topics: must name at least one, unless produces does"),
        (
            {"topics": ["muster.billing.terms"]},
            "topics: no contract describes the topic muster.billing.terms; did you mean",
        ),
        ({"topics": ["muster.sandbox.clock"]}, "no contract describes the topic muster.sandbox.clock"),
        ({"topics": [TERM, PEOPLE]}, f"topics: {PEOPLE}: a restricted topic"),
        ({"classification": "secret"}, "classification: 'secret': must be 'public' or 'restricted'"),
        (
            {"reads": ["muster.billing.TermStarted.v2"]},
            "TermStarted.v2 is unknown: this event has muster.billing.TermStarted.v1",
        ),
        (
            {"reads": ["muster.billing.TermStart.v1"]},
            "TermStart.v1 is not an event of Muster; did you mean muster.billing.TermStarted.v1?",
        ),
        ({"reads": ["muster.entitlements.SeatAssigned.v1"]}, f"is on {SEAT}, which topics does not name"),
        ({"produces": [SEAT]}, f"produces: {SEAT} belongs to entitlements, and nobody else writes to it"),
    ],
    ids=str,
)
def test_facts_that_cannot_be_registered_are_named_with_the_rule(changes: dict[str, Any], complaint: str) -> None:
    facts = {**FACTS, **changes}
    with pytest.raises(BadInput) as refused:
        checked(facts.pop("name", "dash"), facts)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_subscriber_that_declares_a_classification_may_read_restricted_topics() -> None:
    assert checked("dash", {**FACTS, "topics": [TERM, PEOPLE], "classification": "restricted"}).topics == (TERM, PEOPLE)


def test_an_outside_producer_writes_to_the_topic_that_a_contract_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = topics()[TERM].model_copy(update={"name": "muster.treasury.feed", "owner": "treasury-feed"})
    described: dict[str, Topic] = {**topics(), feed.name: feed}
    monkeypatch.setattr(module, "topics", lambda: described)
    facts = {**FACTS, "topics": [], "reads": [], "produces": [feed.name]}
    acls = checked("treasury-feed", facts).acls("eu.", "User:{name}")
    assert [str(acl) for acl in acls] == ["User:treasury-feed may Write topic eu.muster.treasury.feed"]
    with pytest.raises(BadInput, match="belongs to treasury-feed"):
        checked("other-feed", facts)


def test_the_file_keeps_its_comments_and_its_order(tmp_path: Path) -> None:
    path = tmp_path / "subscribers.toml"
    with pytest.raises(BadInput, match="no such subscribers' file"):
        Registry.read(path)
    first, second = checked("zeta", FACTS), checked("alpha", FACTS)
    Registry.read(path, may_be_missing=True).put(first)
    path.write_text("# Ask before you change one.\n" + path.read_text("utf-8"), "utf-8")
    Registry.read(path).put(second)
    again = Registry.read(path)
    assert path.read_text("utf-8").startswith("# Ask before you change one.\n[zeta]\n")
    assert again.subscribers == {"zeta": first, "alpha": second}
    again.put(first.model_copy(update={"review": date(2098, 1, 1)}))
    again.drop("alpha")
    left = Registry.read(path)
    assert [each.review for each in left.subscribers.values()] == [date(2098, 1, 1)]
    with pytest.raises(NotFound, match="did you mean zeta"):
        left["zetta"]


def test_a_change_keeps_what_other_commands_wrote_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "subscribers.toml"
    Registry.read(path, may_be_missing=True).put(checked("zeta", FACTS))
    stale = Registry.read(path)
    Registry.read(path).put(checked("alpha", FACTS))
    stale.drop("zeta")
    assert list(Registry.read(path).subscribers) == ["alpha"]
    stale.drop("zeta")  # another command has
    names = [f"dash-{number}" for number in range(20)]
    with ThreadPoolExecutor(8) as commands:
        list(commands.map(lambda name: Registry.read(path).put(checked(name, FACTS)), names))
    assert Registry.read(path).subscribers.keys() == {"alpha", *names}


def test_the_runbooks_example_can_be_used(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "infra" / "runbooks" / "subscriber-access.md").read_text("utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "subscribers.toml"
    path.write_text(example, "utf-8")
    assert Registry.read(path)["treasury-dashboard"].topics == (TERM,)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[zeta", "is not TOML"),
        ("x = [", "Invalid value .at end of document"),
        ("zeta = 1", "zeta: must be a subscriber's table"),
        ("[zeta]\n", "owner"),
    ],
)
def test_an_unusable_file_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "subscribers.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(BadInput, match=complaint):
        Registry.read(path)


def run(folder: Path, *arguments: str) -> Any:
    file = ["--file", str(folder / "subscribers.toml"), "--home", str(folder / "home")]
    return CliRunner().invoke(app, ["subscribers", *arguments, *file])


def test_overdue_reviews_and_deprecated_events_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUSTER_KAFKA_BOOTSTRAP", raising=False)
    registry = Registry.read(tmp_path / "subscribers.toml", may_be_missing=True)
    registry.put(checked("fresh", FACTS))
    registry.put(checked("stale", {**FACTS, "review": date(2026, 1, 1)}))
    deprecation = Deprecation(date(2026, 1, 15), date(2027, 1, 15), "muster.billing.TermEnded.v1")
    monkeypatch.setattr(TermStarted, "deprecation", deprecation)
    listed = json.loads(run(tmp_path, "list", "--json").stdout)["items"]
    assert [(each["name"], each["overdue"], each["groups"]) for each in listed] == [
        ("fresh", False, None),
        ("stale", True, None),
    ]
    found = {"type": TermStarted.event_type, "sunset": "2027-01-15", "replaced_by": "muster.billing.TermEnded.v1"}
    assert listed[0]["deprecated"] == [found]
    overdue = run(tmp_path, "list", "--overdue", "--json")
    assert (overdue.exit_code, [each["name"] for each in json.loads(overdue.stdout)["items"]]) == (1, ["stale"])
    assert run(tmp_path, "review", "stale", "--next", "2020-01-01").exit_code == 2
    soon = run(tmp_path, "review", "stale", "--next", "soon")
    assert (soon.exit_code, "'soon': must be a day such as 2027-11-27" in soon.stderr) == (2, True)
    assert re.search(r"overdue +no", run(tmp_path, "show", "fresh").stdout)
    reviewed = run(tmp_path, "review", "stale", "--next", "2098-01-01")
    assert (reviewed.exit_code, "It reads muster.billing.TermStarted.v1" in reviewed.stdout) == (0, True)
    assert run(tmp_path, "list", "--overdue").exit_code == 0
    assert run(tmp_path, "show", "other").exit_code == 3


def test_a_subscriber_is_not_registered_without_its_facts_or_without_kafka(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MUSTER_KAFKA_BOOTSTRAP", raising=False)
    facts = ["--owner", "Treasury", "--contact", "x", "--purpose", "y", "--topic", TERM]
    for arguments in (["add", "dash", *facts[2:]], ["add", "dash", *facts]):
        assert run(tmp_path, *arguments).exit_code == 2
    assert not (tmp_path / "subscribers.toml").exists()


def test_a_password_file_without_a_folder_is_named_before_anything_is_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSTER_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    facts = ["--owner", "Treasury", "--contact", "x", "--purpose", "y", "--topic", TERM]
    added = run(tmp_path, "add", "dash", *facts, "--password-file", str(tmp_path / "nowhere" / "password"))
    assert (added.exit_code, f"there is no folder {tmp_path}/nowhere" in added.stderr) == (2, True), added.output
    assert not (tmp_path / "subscribers.toml").exists()


def test_a_password_file_is_private_to_its_owner_and_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "password"
    password = password_for(file)
    assert (file.stat().st_mode & 0o777, password_for(file)) == (0o600, password)
    assert password_for(None) not in (password, password_for(None))
    file.chmod(0o640)
    with pytest.raises(BadInput, match="must be accessible only to you"):
        password_for(file)
    link = tmp_path / "link"
    link.symlink_to(file)
    with pytest.raises(BadInput, match="cannot be read"):
        password_for(link)
