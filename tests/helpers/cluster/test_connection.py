"""helpers/cluster/connection.py: the master connection, and what is reported when there is none."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.cluster import connection, copying, scripts
from helpers.cluster.connection import Cluster
from helpers.common.errors import StepFailed, Unreachable

HERE = Cluster("login.example", tunnel="local")
AWAY = Cluster("login.example", "ann")


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("", ""),
        ("hello\nworld\n", "world"),
        ("ssh: connect to host x port 22: Connection refused\nGood bye!\n", "ssh: connect to host x port 22: Connection refused"),
        ("** private system **\r\nkex_exchange_identification: read: reset\r\n", "kex_exchange_identification: read: reset"),
        ("bash: \x1b[2Jx\n", "bash: \\x1b[2Jx"),
        ("ssh: " + "x" * 1000, "ssh: " + "x" * 295),
    ],
)
def test_the_last_line_that_tells_is_one_line_that_moves_no_cursor(said: str, line: str) -> None:
    assert connection.last_line(said) == line


def test_a_cluster_is_called_as_a_person_would_call_it() -> None:
    assert str(AWAY) == "ann@login.example"
    assert str(Cluster("h")) == "h"
    assert str(HERE) == "this login node"


# ---- The connection ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the sockets lie, in place of /tmp: `evalmake-UID` in it. With a short path, as a socket's must be."""
    short = Path(f"/tmp/evalmake-test-{os.getpid()}")
    short.mkdir()
    monkeypatch.setattr(connection, "Path", lambda path: short if str(path) == "/tmp" else Path(path))
    connection.socket_path.cache_clear()
    yield short
    connection.socket_path.cache_clear()
    shutil.rmtree(short)


def test_the_socket_lies_in_a_folder_for_this_user_alone(folder: Path) -> None:
    path = connection.socket_path(AWAY)
    assert path.parent == folder / f"evalmake-{os.getuid()}"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.parent.stat().st_uid == os.getuid()


def test_the_socket_s_path_is_short_under_a_long_tmpdir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    connection.socket_path.cache_clear()
    monkeypatch.setenv("TMPDIR", f"{tmp_path}/{'long' * 40}")
    # ssh binds PATH.16-characters first, and renames it; sun_path takes 104 bytes on macOS with the null at its end.
    assert len(str(connection.socket_path(Cluster("login-" + "very-" * 40 + "long.example", "u" * 30, 65535, "/k" * 90)))) + 17 < 104


def test_each_way_to_a_cluster_has_a_socket_of_its_own_and_always_the_same(folder: Path) -> None:
    ways = [
        Cluster("h"),
        Cluster("h2"),
        Cluster("h", "ann"),
        Cluster("h", "ann", 22),
        Cluster("h", "ann", 22, "/k"),
        Cluster("h", None, 22),
    ]
    paths = [connection.socket_path(way) for way in ways]
    assert len(set(paths)) == len(ways)
    connection.socket_path.cache_clear()
    assert [connection.socket_path(way) for way in ways] == paths


def test_another_ssh_has_another_socket(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = connection.socket_path(AWAY)
    (tmp_path / "ssh").write_text("#!/bin/sh\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    connection.socket_path.cache_clear()
    assert connection.socket_path(AWAY) != before


@pytest.mark.parametrize("mode", [0o777, 0o750, 0o701])
def test_a_folder_that_is_open_to_others_is_refused(folder: Path, mode: int) -> None:
    place = folder / f"evalmake-{os.getuid()}"
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(Unreachable, match=r"must belong to you alone.*: remove it"):
        connection.socket_path(AWAY)


def test_a_folder_of_somebody_else_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    somebody = os.getuid() + 1
    (folder / f"evalmake-{somebody}").mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: somebody)
    with pytest.raises(Unreachable, match=r"must belong to you alone.*: remove it"):
        connection.socket_path(AWAY)


def test_a_link_in_the_folder_s_place_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    (folder / f"evalmake-{os.getuid()}").symlink_to(tmp_path / "mine")
    with pytest.raises(Unreachable, match=r"must belong to you alone.*: remove it"):
        connection.socket_path(AWAY)


def test_a_file_in_the_folder_s_place_is_refused(folder: Path) -> None:
    (folder / f"evalmake-{os.getuid()}").write_text("")
    with pytest.raises(Unreachable, match=r"cannot make .* for the connection's socket: File exists"):
        connection.socket_path(AWAY)


def test_a_connection_is_there_when_its_socket_takes_one(folder: Path) -> None:
    assert not connection.is_open(AWAY)
    with socket.socket(socket.AF_UNIX) as master:
        master.bind(str(connection.socket_path(AWAY)))
        assert not connection.is_open(AWAY), "bound by a master that was killed"
        master.listen()
        assert connection.is_open(AWAY)
    assert connection.socket_path(AWAY).exists()
    assert not connection.is_open(AWAY), "left by a master that was killed"


def test_the_command_that_opens_a_connection_names_all_that_is_known_and_nothing_else(folder: Path) -> None:
    command = connection.open_command(Cluster("h", "ann", 2222, "/k"))
    assert command[-2:] == ["--", "h"]
    words = " ".join(command)
    assert "-l ann -p 2222 -i /k" in words
    assert f"-S {connection.socket_path(Cluster('h', 'ann', 2222, '/k'))}" in words
    assert f"ControlPersist={connection.KEPT_SECONDS}" in words
    plain = connection.open_command(Cluster("h"))
    assert not {"-l", "-p", "-i"} & set(plain)


def test_a_command_through_the_connection_can_make_none_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "open_connection", lambda *_: None)
    command = connection.command(AWAY)
    assert command == [
        "ssh",
        "-S",
        str(connection.socket_path(AWAY)),
        *connection.ONLY_THROUGH_MASTER,
        "--",
        "login.example",
        "exec bash -s",
    ]
    assert connection.rsync_shell(AWAY) == shlex.join(command[: command.index("--")])
    assert connection.command(HERE) == ["bash", "-s"]


def ssh_double(folder: Path, script: str) -> Path:
    """A double of ssh that writes its arguments down, and does what the script says."""
    path = folder / "bin" / "ssh"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/bash\necho "$*" >> {folder}/calls\n{script}\n')
    path.chmod(0o755)
    return path.parent


def test_a_connection_that_cannot_be_made_is_reported_with_the_fix(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bin_ = ssh_double(folder, 'echo "ssh: connect to host login.example port 22: Connection refused" >&2; exit 255')
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    monkeypatch.setattr(connection, "_has_terminal", lambda: False)
    with pytest.raises(Unreachable, match=r"login.example refuses the connection"):
        connection.open_connection(AWAY)
    assert "BatchMode=yes" in (folder / "calls").read_text(), "without a terminal ssh must not wait for a password"


def test_only_where_a_person_can_be_asked_may_ssh_ask(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bin_ = ssh_double(folder, "exit 255")
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    monkeypatch.setattr(connection, "_has_terminal", lambda: True)
    for interactive, batch in ((True, 0), (False, 1)):
        with pytest.raises(Unreachable):
            connection.open_connection(AWAY, interactive)
        assert (folder / "calls").read_text().count("BatchMode=yes") == batch


@pytest.mark.slow
def test_a_connection_that_hangs_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bin_ = ssh_double(folder, "exec sleep 60")
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    monkeypatch.setattr(connection, "_has_terminal", lambda: False)
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.2)
    with pytest.raises(Unreachable, match=r"did not answer ssh within .*check the network or the VPN"):
        connection.open_connection(AWAY)


def test_two_at_once_open_one_connection(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listen = (
        "import socket,sys,time; s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(9)\n"
        "print('ready', flush=True); time.sleep(20)"
    )
    # As ssh -f does: the master goes to the background when its socket is there, and this command ends.
    bin_ = ssh_double(
        folder,
        f'while [ "$1" != -S ]; do shift; done; mkfifo {folder}/ready\n'
        f'python3 -c "{listen}" "$2" > {folder}/ready & echo $! > {folder}/pid\n'
        f"sleep 0.3; read -r _ < {folder}/ready",
    )
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    monkeypatch.setattr(connection, "_has_terminal", lambda: False)
    path = connection.socket_path(AWAY)
    path.write_text("")  # as a master that was killed leaves it
    from concurrent.futures import ThreadPoolExecutor

    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: connection.open_connection(AWAY), range(4)))
        assert len((folder / "calls").read_text().splitlines()) == 1
        assert connection.is_open(AWAY)
    finally:
        subprocess.run(["kill", (folder / "pid").read_text().strip()], check=False)


# ---- What ssh says -----------------------------------------------------------------------------------------------------------------------


CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Offending ED25519 key in /home/ann/.ssh/known_hosts:3
Host key for login.example has changed and you have requested strict checking.
Host key verification failed.
"""
SAID = [
    ("ssh: Could not resolve hostname login.example: Name or service not known\n", "cannot resolve the host name login.example"),
    ("ssh: Could not resolve hostname login.example: Temporary failure in name resolution\n", "cannot resolve the host name login.example"),
    ("ssh: connect to host login.example port 22: Connection refused\n", "login.example refuses the connection; check host and port"),
    (CHANGED, "the host key of login.example has changed: ask the cluster's administrators"),
    ("Host key verification failed.\n", "is not known yet: run `ssh login.example` once and accept it"),
    (
        "No ED25519 host key is known for login.example and you have requested strict checking.\nHost key verification failed.\n",
        "is not known yet: run `ssh login.example` once and accept it",
    ),
    (
        (
            "Warning: Identity file /home/ann/.ssh/k not accessible: No such file or directory.\n"
            "ann@login.example: Permission denied (publickey).\n"
        ),
        "Warning: Identity file /home/ann/.ssh/k not accessible: No such file or directory.: check identity in env.toml",
    ),
    (
        'Load key "/home/ann/k": invalid format\nann@login.example: Permission denied (publickey).\n',
        'Load key "/home/ann/k": invalid format',
    ),
    (
        'Load key "/home/ann/k": error in libcrypto\nann@login.example: Permission denied (publickey).\n',
        "error in libcrypto: check identity",
    ),
    (
        "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures\nDisconnected from 10.0.0.1 port 22\n",
        "ssh offered ann@login.example too many keys",
    ),
    (
        "ann@login.example: Permission denied (publickey,keyboard-interactive).\n",
        "asks for a password or a second factor, and there is no terminal to ask on; run this in a terminal",
    ),
    (
        "ann@login.example: Permission denied (publickey,password).\n",
        "(the connection stays open for 10 minutes after its last use): ssh -fN -S /tmp/",
    ),
    ("ann@login.example: Permission denied (publickey).\n", "permission denied for ann@login.example: check user and identity"),
    (
        "ann@login.example: Permission denied (publickey,gssapi-keyex,gssapi-with-mic).\n",
        "permission denied for ann@login.example: check user and identity",
    ),
    ("ssh: connect to host login.example port 22: Connection timed out\n", "login.example does not answer (ssh: connect to host"),
    ("Connection timed out during banner exchange\n", "login.example does not answer (Connection timed out during banner exchange)"),
    ("ssh: connect to host login.example port 22: No route to host\n", "login.example does not answer"),
    ("ssh: connect to host login.example port 22: Network is unreachable\n", "check the network or the VPN"),
    (
        "/home/ann/.ssh/config: line 3: Bad configuration option: foo\n/home/ann/.ssh/config: terminating, 1 bad configuration options\n",
        "ssh cannot read its configuration: /home/ann/.ssh/config: line 3: Bad configuration option: foo",
    ),
    ("Bad owner or permissions on /home/ann/.ssh/config\n", "ssh cannot read its configuration: Bad owner or permissions on"),
    ('unix_listener: path "/tmp/x" too long for Unix domain socket\n', "ssh cannot use its socket: unix_listener"),
]


@pytest.mark.parametrize(("said", "told"), SAID, ids=lambda value: value[:40])
def test_what_ssh_says_becomes_one_line_with_the_fix(said: str, told: str) -> None:
    banner = "**************************************\n* This is a private computer system. *\n"
    for text in (said, banner + said):
        line = connection.why_not(AWAY, text)
        assert told in line, line
        assert "\n" not in line
        assert "{" not in line


def test_every_fix_is_reached_by_something_that_ssh_says() -> None:
    first = [next((pattern for pattern in connection.FIXES if re.search(pattern, said)), None) for said, _ in SAID]
    assert set(connection.FIXES) == set(first)


def test_the_person_who_was_asked_and_refused_is_not_told_to_find_a_terminal() -> None:
    line = connection.why_not(AWAY, "ann@login.example: Permission denied (publickey,keyboard-interactive).\n", asked=True)
    assert "terminal" not in line
    assert "permission denied for ann@login.example" in line


def test_what_nobody_knows_is_reported_as_it_is_with_where_to_look() -> None:
    line = connection.why_not(AWAY, "kex_exchange_identification: Connection closed by remote host\n")
    assert line == (
        "the connection to ann@login.example failed: kex_exchange_identification: Connection closed by remote host; "
        "try again, or see what `ssh ann@login.example` says"
    )
    assert "ssh printed nothing" in connection.why_not(AWAY, "")


def test_without_ssh_on_this_machine_the_fix_is_reported(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(Unreachable, match="there is no ssh command on this machine"):
        scripts.run(AWAY, "x")
    with pytest.raises(StepFailed, match="there is no rsync command on this machine"):
        copying.upload(HERE, [folder], str(folder))


def test_on_a_login_node_itself_no_secret_of_ours_gets_into_a_job_s_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "planted")
    assert "HF_TOKEN" not in (connection.environment(Cluster("here", tunnel="local")) or {})
    assert connection.environment(Cluster("there")) is None
