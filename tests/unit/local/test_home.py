"""A home is private, belongs to whoever runs it, and gives each process a port of its own."""

import os
import socket
import stat
from pathlib import Path

import pytest

from muster_local import home as home_module
from muster_local.home import Home, HomeRefused, PortTaken

LISTENERS = ("postgres", "kafka", "mail")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").make()


def test_each_listener_gets_a_port_of_its_own_where_few_are_left(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    few = range(28_100, 28_103)
    monkeypatch.setattr(home_module, "_PORTS", few)
    installation = home.installation(LISTENERS, {})
    assert sorted(installation.ports.values()) == list(few)


def test_a_home_whose_ports_were_drawn_twice_heals(home: Home) -> None:
    drawn = home.installation(LISTENERS, {})
    same = dict.fromkeys(LISTENERS, drawn.ports["postgres"])
    (home.path / "installation.json").write_text(drawn.model_copy(update={"ports": same}).model_dump_json(), "utf-8")
    healed = home.installation(LISTENERS, {}).ports
    assert len(set(healed.values())) == len(LISTENERS)
    assert drawn.ports["postgres"] in healed.values()


def test_a_port_that_was_taken_meanwhile_is_drawn_again(home: Home) -> None:
    drawn = home.installation(LISTENERS, {}).ports
    with socket.socket() as other:
        other.bind(("127.0.0.1", drawn["kafka"]))
        other.listen()
        again = home.installation(LISTENERS, {}).ports
    assert again["kafka"] != drawn["kafka"]
    assert again["postgres"] == drawn["postgres"]


def test_a_port_that_is_asked_for_goes_to_its_process_alone(home: Home) -> None:
    kept = home.installation(LISTENERS, {}).ports
    asked = home.installation(LISTENERS, {"mail": kept["kafka"]}).ports
    assert asked["mail"] == kept["kafka"]
    assert len(set(asked.values())) == len(LISTENERS)


def test_one_port_cannot_be_asked_for_twice(home: Home) -> None:
    with pytest.raises(PortTaken, match=r"port 28104 is asked for by both kafka and mail"):
        home.installation(LISTENERS, {"kafka": 28_104, "mail": 28_104})


def test_without_a_free_port_the_start_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home_module, "_PORTS", range(28_106, 28_108))
    with pytest.raises(PortTaken, match=r"no port from 28106 to 28107 is free"):
        home.installation(LISTENERS, {})


def test_all_that_is_in_a_home_is_private(home: Home) -> None:
    home.installation(LISTENERS, {})
    home.issuer()
    with home.held():
        pass
    home.append("supervisor").close()
    for path in [home.path, *home.path.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_an_open_home_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "open"
    path.mkdir(mode=0o755)
    (path / "logs").mkdir(mode=0o755)
    Home(path).make()
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path / "logs")] == [0o700, 0o700]


def test_the_way_that_postgres_needs_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "home"
    path.mkdir(mode=0o710)
    path.chmod(0o710)
    Home(path).make()
    assert stat.S_IMODE(path.stat().st_mode) == 0o710


@pytest.mark.parametrize("name", ["supervisor.lock", "issuer.pem", "state.json", "mail", "logs/billing.log"])
def test_a_link_where_a_file_should_be_is_refused(home: Home, tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    target.touch()
    (home.path / name).unlink(missing_ok=True) if name != "mail" else home.mail.rmdir()
    (home.path / name).symlink_to(target)
    with pytest.raises(HomeRefused, match=rf"{name} is a symbolic link"):
        home.make()


def test_a_link_is_not_followed_by_who_writes(home: Home, tmp_path: Path) -> None:
    home.log("billing").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        home.append("billing")
    assert not (tmp_path / "elsewhere").exists()


def test_a_home_of_somebody_else_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: home.path.stat().st_uid + 1)
    with pytest.raises(HomeRefused, match=r"belongs to .*, and you are"):
        home.make()
