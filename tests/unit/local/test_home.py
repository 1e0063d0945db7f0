"""A home is private, belongs to whoever runs it, and gives each process its own port."""

import asyncio
import os
import shlex
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from muster_local import home as home_module
from muster_local.home import Home, PortTaken, SecuredOtherwise, State
from muster_local.mail import Keeper
from muster_local.private import HomeRefused
from muster_local.stack import Stack
from muster_operator import cli
from muster_operator.failures import NotFound

LISTENERS = ("postgres", "kafka", "mail")

COMMANDS = (
    "up",
    "down",
    "status",
    "logs",
    "token --scope billing:read --agency NASA",
    "address kafka",
    "demo",
    "topics plan",
    "clock show",
    "clock advance --by 1d",
    "parked list",
    "deadlines list",
    "streams",
    "seats import /dev/null --agency NASA",
    "reconcile",
    "rebuild notify.directory",
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").make()


def test_each_listener_gets_its_own_port_even_if_few_are_left(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    few = range(28_100, 28_103)
    monkeypatch.setattr(home_module, "_PORTS", few)
    installation = home.installation(LISTENERS, {})
    assert sorted(installation.ports.values()) == list(few)


def test_a_starting_stack_is_not_reported_missing(home: Home) -> None:
    with home.held():
        home.write_state(State(supervisor=os.getpid(), phase="starting"))
        with pytest.raises(NotFound, match=f"the stack in {home.path} is starting; see muster status --home"):
            Stack.required(home.path)
    with pytest.raises(NotFound, match=f"no stack is running in {home.path}"):
        Stack.required(home.path)


def test_a_home_with_a_port_assigned_twice_is_repaired(home: Home) -> None:
    drawn = home.installation(LISTENERS, {})
    same = dict.fromkeys(LISTENERS, drawn.ports["postgres"])
    (home.path / "installation.json").write_text(drawn.model_copy(update={"ports": same}).model_dump_json(), "utf-8")
    healed = home.installation(LISTENERS, {}).ports
    assert len(set(healed.values())) == len(LISTENERS)
    assert drawn.ports["postgres"] in healed.values()


def test_a_port_that_was_taken_in_the_meantime_is_replaced(home: Home) -> None:
    drawn = home.installation(LISTENERS, {}).ports
    with socket.socket() as other:
        other.bind(("127.0.0.1", drawn["kafka"]))
        other.listen()
        again = home.installation(LISTENERS, {}).ports
    assert again["kafka"] != drawn["kafka"]
    assert again["postgres"] == drawn["postgres"]


def test_a_requested_port_goes_only_to_its_process(home: Home) -> None:
    kept = home.installation(LISTENERS, {}).ports
    asked = home.installation(LISTENERS, {"mail": kept["kafka"]}).ports
    assert asked["mail"] == kept["kafka"]
    assert len(set(asked.values())) == len(LISTENERS)


def test_one_port_cannot_be_requested_twice(home: Home) -> None:
    with pytest.raises(PortTaken, match=r"port 28104 is requested for both kafka and mail"):
        home.installation(LISTENERS, {"kafka": 28_104, "mail": 28_104})


def test_without_a_free_port_the_start_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home_module, "_PORTS", range(28_106, 28_108))
    with pytest.raises(PortTaken, match=r"no port from 28106 to 28107 is free"):
        home.installation(LISTENERS, {})


def test_everything_in_a_home_is_private(home: Home) -> None:
    home.installation(LISTENERS, {})
    home.issuer()
    with home.held():
        pass
    home.append("supervisor").close()
    for path in [home.path, *home.path.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


async def test_a_message_is_private_whatever_the_umask(home: Home) -> None:
    envelope = Envelope()
    envelope.original_content = b"Subject: hello\r\n\r\n"
    await Keeper(home.mail).handle_DATA(SMTP(None), Session(asyncio.get_running_loop()), envelope)
    (message,) = home.mail.iterdir()
    assert stat.S_IMODE(message.stat().st_mode) == 0o600


def test_an_open_home_is_made_private_if_it_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "open"
    path.mkdir()
    path.chmod(0o777)
    Home(path).make()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["", "state.json", "issuer.pem", "logs", "logs/billing.log", "mail/1.eml", "receiver"])
@pytest.mark.parametrize("others", [0o004, 0o020, 0o002])
def test_a_path_open_to_others_is_refused_with_the_command_that_closes_it(home: Home, name: str, others: int) -> None:
    (home.path / "receiver").mkdir(mode=0o700)
    path = home.path / name
    if not path.exists():
        path.touch(mode=0o600)
    path.chmod(mode := stat.S_IMODE(path.stat().st_mode) | others)
    with pytest.raises(HomeRefused) as refused:
        Home(home.path)
    assert f"{path} is open to others (mode {mode:04o})" in str(refused.value)
    advice = str(refused.value).partition("close it with ")[2].partition(",")[0]
    subprocess.run(shlex.split(advice), check=True)
    Home(home.path).make()


def test_the_access_that_postgres_needs_stays_open(home: Home) -> None:
    home.path.chmod(0o710)
    Home(home.path).make()
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o710


def test_the_servers_folders_are_checked_but_not_their_contents(home: Home) -> None:
    for server in ("postgres", "kafka"):
        (home.path / server).mkdir(mode=0o700)
        (home.path / server / "data").mkdir(mode=0o755)
    Home(home.path).make()
    (home.path / "kafka").chmod(0o750)
    with pytest.raises(HomeRefused, match=r"kafka is open to others \(mode 0750\)"):
        Home(home.path)


@pytest.mark.parametrize("name", ["supervisor.lock", "issuer.pem", "mail", "logs/billing.log", "mail/1.eml", "kafka"])
def test_a_link_where_a_file_should_be_is_refused(home: Home, tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    target.touch()
    (home.path / name).unlink(missing_ok=True) if name != "mail" else home.mail.rmdir()
    (home.path / name).symlink_to(target)
    with pytest.raises(HomeRefused, match=rf"{name} is a symbolic link"):
        home.make()


def test_a_home_that_is_a_link_is_refused(home: Home, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(home.path)
    with pytest.raises(HomeRefused, match=r"link is a symbolic link"):
        Home(tmp_path / "link")


@pytest.mark.parametrize("name", ["issuer.pem", "logs/billing.log", "mail/1.eml"])
def test_a_file_with_a_hard_link_elsewhere_is_refused(home: Home, tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    target.touch(mode=0o600)
    (home.path / name).hardlink_to(target)
    with pytest.raises(HomeRefused, match=rf"{name} is a hard link"):
        Home(home.path)


def test_a_pipe_where_a_file_should_be_is_refused(home: Home) -> None:
    os.mkfifo(home.path / "state.json", 0o600)
    with pytest.raises(HomeRefused, match=r"state.json is a special file"):
        Home(home.path)


def test_a_file_cannot_be_a_home(tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0o600)
    with pytest.raises(HomeRefused, match=r"file is a file: choose a folder"):
        Home(tmp_path / "file")
    with pytest.raises(HomeRefused, match=r"cannot be a home: Not a directory"):
        Home(tmp_path / "file" / "home")


def test_writing_does_not_follow_a_link(home: Home, tmp_path: Path) -> None:
    home.log("billing").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        home.append("billing")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("read", [Home.read_state, Home.supervisor])
def test_reading_does_not_follow_a_link(home: Home, tmp_path: Path, read: Callable[[Home], object]) -> None:
    (tmp_path / "elsewhere").write_text(State(supervisor=1).model_dump_json())
    for name in ("state.json", "supervisor.lock"):
        (home.path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        read(home)


def test_somebody_elses_home_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: home.path.stat().st_uid + 1)
    with pytest.raises(HomeRefused, match=r"belongs to .*, and you are"):
        home.make()


@pytest.fixture
def bystander() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that has nothing to do with the home."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_somebody_elses_home_in_one_line(
    command: str,
    home: Home,
    bystander: "subprocess.Popen[bytes]",
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home.write_state(State(supervisor=bystander.pid, phase="running"))
    before = sorted(home.path.rglob("*"))
    with home.held():
        (home.path / "supervisor.lock").write_text(str(bystander.pid))
        monkeypatch.setattr(os, "geteuid", lambda: home.path.stat().st_uid + 1)
        monkeypatch.setattr(sys, "argv", ["muster", *command.split(), f"--home={home.path}"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    said = capsys.readouterr()
    assert bystander.poll() is None
    assert ended.value.code == 2, said
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert "choose a folder of your own (--home)" in said.err
    assert sorted(home.path.rglob("*")) == [*before, home.path / "supervisor.lock"]


@pytest.mark.parametrize("written", ["{bystander}", "0", "-1", "9" * 30, "nonsense"])
def test_a_pid_in_the_lock_that_is_not_its_holders_is_never_signaled(
    home: Home, bystander: "subprocess.Popen[bytes]", written: str
) -> None:
    with home.held():
        assert home.supervisor() == os.getpid()
        (home.path / "supervisor.lock").write_text(written.format(bystander=bystander.pid))
        assert home.supervisor() is None
        asyncio.run(Stack(home.path).stop())
    assert bystander.poll() is None


@pytest.mark.parametrize("secure", [True, False])
def test_a_stack_stays_secured_or_plain_as_it_was_created(home: Home, secure: bool) -> None:
    assert home.secured(secure) is secure
    made = home.installation(LISTENERS, {}, secure=secure)
    assert (made.secured is not None) is secure
    assert home.installation(LISTENERS, {}).secured == made.secured
    assert home.secured(None) is home.secured(secure) is secure
    with pytest.raises(SecuredOtherwise, match="choose another home"):
        home.secured(not secure)
