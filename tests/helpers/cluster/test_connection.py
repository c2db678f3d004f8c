"""helpers/cluster/connection.py: what a cluster is sent, what its answer means, and what is said when there is none."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.cluster import connection
from helpers.cluster.connection import Cluster, ConnectionLost, Frame
from helpers.common.errors import StepFailed, Unreachable

HERE = Cluster("login.example", tunnel="local")
AWAY = Cluster("login.example", "ann")
MARK = b"@@0123\n"
END = b"@end - 0\n\n"

# A script's beginning without Slurm, which common.sh insists on.
BEGIN = 'set -u\nprintf "@@%s\\n" "$TOKEN"\nframe() { printf "@%s %s %d\\n%s\\n" "$1" "$2" "${#3}" "$3"; }\n'


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of doubles of Slurm's commands, first on PATH: common.sh looks whether they are there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("squeue", "sbatch"):
        (folder / name).write_text("#!/bin/sh\nexit 1\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


# ---- Frames ----------------------------------------------------------------------------------------------------------------------------


FRAMES = [
    Frame("job", "0", b"123"),
    Frame("log", "0.1/client-7.log/4096", "größer\n@end - 0\n\n@job 1 3\nabc\n".encode()),
    Frame("empty", "-", b""),
    Frame("tail-server", "1.0", b"\n\n\xff\xfe\x00"),
    Frame("end", "-", b""),
]


def as_sent(frames: list[Frame]) -> bytes:
    return b"".join(f"@{one.kind} {one.key} {len(one.data)}\n".encode() + one.data + b"\n" for one in frames)


def test_frames_are_the_same_wherever_the_stream_is_cut() -> None:
    data = as_sent(FRAMES)
    for cut in range(len(data) + 1):
        first, rest = connection.split_frames(data[:cut])
        second, left = connection.split_frames(rest + data[cut:])
        assert first + second == FRAMES, cut
        assert left == b"", cut


def test_frames_come_whole_when_the_stream_comes_byte_by_byte() -> None:
    rest, found = b"", []
    for byte in as_sent(FRAMES):
        frames, rest = connection.split_frames(rest + bytes([byte]))
        found += frames
    assert found == FRAMES


def test_what_is_no_frame_stays_as_it_is() -> None:
    for data in (b"hello\n", b"@job 0\n", b"@JOB 0 3\nabc\n", b"@job 0 x\n"):
        assert connection.split_frames(data) == ([], data)
    assert connection.split_frames(b"@job 0 3\nabc\nhello") == ([Frame("job", "0", b"abc")], b"hello")


def test_a_frame_as_text_has_no_line_break_at_its_end_and_no_byte_breaks_it() -> None:
    assert Frame("x", "-", "é\nb\n\n".encode()).text == "é\nb"
    assert Frame("x", "-", b"\xff").text == "\ufffd"


# ---- Answers ---------------------------------------------------------------------------------------------------------------------------


def answer(stdout: bytes, stderr: str = "", code: int = 0) -> list[Frame]:
    return connection.answer(AWAY, stdout, stderr, code, "0123")


def test_an_answer_is_what_stands_between_the_mark_and_the_end() -> None:
    assert answer(MARK + b"@job 0 3\nabc\n" + END) == [Frame("job", "0", b"abc")]
    assert answer(MARK + END) == []


@pytest.mark.parametrize("junk", [b"Welcome!\n", b"@@ffff\n", b"@job 9 3\nxyz\n@end - 0\n\n", b"\x1b[1m motd \xff without an end"])
def test_what_a_login_shell_prints_before_the_mark_is_left_out(junk: bytes) -> None:
    assert answer(junk + MARK + b"@job 0 3\nabc\n" + END) == [Frame("job", "0", b"abc")]


def test_an_answer_that_is_whole_counts_whatever_the_exit_code() -> None:
    assert answer(MARK + END, "client_loop: send disconnect: Broken pipe", connection.LOST) == []


@pytest.mark.parametrize("code", [0, connection.LOST, -9, -15])
def test_an_answer_that_breaks_off_anywhere_counts_as_lost(code: int) -> None:
    data = MARK + b"@job 0 3\nabc\n" + END
    for cut in range(len(MARK), len(data)):
        with pytest.raises(ConnectionLost, match=r"the connection to ann@login.example was lost .*give the same command again"):
            answer(data[:cut], "", code)


def test_a_line_that_breaks_before_anything_was_said_is_lost_too() -> None:
    with pytest.raises(ConnectionLost, match=r"Connection to login.example closed by remote host"):
        answer(b"", "hello from the server\nConnection to login.example closed by remote host.\n", connection.LOST)


@pytest.mark.parametrize(("stdout", "code"), [(b"", 0), (b"", 1), (MARK + b"@job 0 3\nabc\n", 1), (b"sorry", 127)])
def test_bash_that_ends_on_its_own_is_no_lost_line(stdout: bytes, code: int) -> None:
    with pytest.raises(StepFailed, match=f"bash on ann@login.example ended with code {code}: bash: line 9: x: unbound variable"):
        answer(stdout, "Welcome to the cluster\nbash: line 9: x: unbound variable\n", code)


def test_a_login_node_without_slurm_is_told_with_the_mend() -> None:
    with pytest.raises(Unreachable, match=r"Slurm's commands are not on the PATH.*PATH=/usr/bin.*~/.bashrc"):
        answer(MARK + b"@no-slurm - 13\nPATH=/usr/bin\n" + END)


def test_a_server_that_opens_no_more_sessions_is_tried_again_and_named_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "mux_client_request_session: session request failed: Session open refused by peer\n"
    with pytest.raises(connection._Refused):
        answer(b"", said, connection.LOST)
    tries: list[float] = []

    def refused(*_: Any) -> list[Frame]:
        tries.append(time.monotonic())
        if len(tries) == 2:
            return []
        raise connection._Refused

    monkeypatch.setattr(connection, "_run_once", refused)
    assert connection.run(AWAY, "x") == []
    assert len(tries) == 2
    monkeypatch.setattr(connection, "REFUSED_SECONDS", -1)
    tries[:] = [0.0, 0.0]
    with pytest.raises(Unreachable, match=r"refuses another session.*MaxSessions"):
        connection.run(AWAY, "x")


def test_a_line_that_breaks_is_mended_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def lost(*_: Any) -> list[Frame]:
        tries.append(1)
        if len(tries) == 2:
            return [Frame("job", "0", b"1")]
        raise ConnectionLost("gone")

    monkeypatch.setattr(connection, "_run_once", lost)
    assert connection.run(AWAY, "x") == [Frame("job", "0", b"1")]
    tries[:] = [1, 1]
    with pytest.raises(ConnectionLost):
        connection.run(AWAY, "x")
    assert len(tries) == 4


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


# ---- Scripts, through a real bash --------------------------------------------------------------------------------------------------------


NASTY = [
    "a b  c",
    "",
    " leading and trailing ",
    'it\'s "quoted" `id` $(id) $HOME ${x}',
    "; rm -rf /tmp/nothing & | > < ( ) { } [ ] * ? ! # ~",
    "two\nlines\n\nand an end\n",
    "back\\slash \\n \\",
    "tab\there",
    "-n",
    "é ü 漢 \u202e",
    "@end - 0\n\n",
    "x" * 100_000,
]


def test_every_value_arrives_as_it_was(scripts: Path, slurm: Path) -> None:
    (scripts / "echo.sh").write_text(
        'main() {\n  local index\n  frame one - "$ONE"\n  frame number - "$NUMBER"\n'
        '  for index in "${!MANY[@]}"; do frame many "$index" "${MANY[index]}"; done\n  frame none "${#NONE[@]}" ""\n  finish\n}\n'
    )
    for value in NASTY:
        frames = connection.run(HERE, connection.script("echo", ONE=value, MANY=NASTY, NONE=[], NUMBER=7))
        assert frames[0] == Frame("one", "-", value.encode())
        assert frames[1] == Frame("number", "-", b"7")
        assert [frame.data.decode() for frame in frames[2:-1]] == NASTY
        assert frames[-1] == Frame("none", "0", b"")


def test_a_script_holds_what_it_shares_and_its_own_and_ends_by_itself() -> None:
    text = connection.script("submit", RUNDIR="/r")
    assert (
        text.index("RUNDIR=/r\n")
        < text.index("look_up()")
        < text.index("queue_one()")
        < text.index("main() {")
        < text.index("main; exit\n")
    )
    assert text.endswith("main; exit\n")


def test_each_script_that_is_there_can_be_put_together() -> None:
    parts = {path.stem for path in connection.SCRIPTS.glob("*.sh")}
    shared = {"common"}.union(*connection.SHARED.values())
    assert shared < parts
    for name in parts - shared:
        done = subprocess.run(["bash", "-n"], input=connection.script(name), text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), name
    assert set(connection.SHARED) <= parts


@pytest.mark.parametrize("known", [True, False])
def test_slurm_is_found_where_an_interactive_shell_finds_it_and_else_the_mend_is_told(
    tmp_path: Path, scripts: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Here /etc/profile is a file of the test's, and PATH a folder with bash alone."""
    profile, bare = tmp_path / "profile", tmp_path / "bare"
    bare.mkdir()
    (bare / "bash").symlink_to(str(shutil.which("bash")))
    profile.write_text(f'echo "Welcome!"; PATH={slurm}:/usr/bin:/bin; echo $NOT_SET\n' if known else "read -r line; exit_is_not_called=1\n")
    common = (connection.SCRIPTS / "common.sh").read_text()
    (scripts / "common.sh").unlink()
    (scripts / "common.sh").write_text(common.replace("/etc/profile", str(profile)))
    (scripts / "where.sh").write_text('main() { frame where - "$(command -v squeue)"; finish; }\n')
    monkeypatch.setenv("PATH", str(bare))
    if known:
        assert connection.run(HERE, connection.script("where")) == [Frame("where", "-", f"{slurm}/squeue".encode())]
    else:
        with pytest.raises(Unreachable, match=f"this login node: Slurm's commands are not on the PATH .*PATH={bare}"):
            connection.run(HERE, connection.script("where"))


def test_common_sh_prints_its_mark_first_and_bytes_are_counted_as_bytes(
    scripts: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scripts / "words.sh").write_text(
        'main() { frame word - "größe"; frame lc - "${was_lc_all}|$(env | grep -c ^LC_ALL)|$(umask)"; finish; }\n'
    )
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert connection.run(HERE, connection.script("words")) == [Frame("word", "-", "größe".encode()), Frame("lc", "-", b"C.UTF-8|0|0077")]


@pytest.mark.parametrize("ending", ["kill -KILL $$", "kill -TERM $$", "exit 0", ""])
def test_a_script_that_is_ended_half_way_is_a_lost_connection(ending: str) -> None:
    with pytest.raises(ConnectionLost, match="this login node was lost"):
        connection._run_once(HERE, f"{BEGIN}frame job 0 123\n{ending}\n", 20, False)


def test_a_script_that_was_killed_is_given_once_more_and_its_second_answer_counts(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    text = f"{BEGIN}if mkdir {shlex.quote(str(begun))} 2> /dev/null; then kill -KILL $$; fi\nframe job 0 5\nframe end - ''\nexit 0\n"
    assert connection.run(HERE, text) == [Frame("job", "0", b"5")]


def test_a_bug_in_a_script_is_told_with_bash_s_own_words() -> None:
    with pytest.raises(StepFailed, match=r"ended with code 1: .*bash: line .*nothing: unbound variable"):
        connection.run(HERE, f'{BEGIN}echo "$nothing"\nframe end - ""\n')


def test_a_script_that_does_not_answer_in_time_is_given_up_and_ended(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(Unreachable, match="this login node did not answer within 1 s") as caught:
        connection.run(HERE, f"{BEGIN}echo $$ > {shlex.quote(str(tmp_path / 'pid'))}\nsleep 60\n", timeout=1)
    assert not isinstance(caught.value, ConnectionLost), "whoever reads a time-out as a lost line gives the script again"
    assert time.monotonic() - began < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_without_ssh_on_this_machine_the_mend_is_told(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(Unreachable, match="there is no ssh command on this machine"):
        connection.run(AWAY, "x")
    with pytest.raises(StepFailed, match="there is no rsync command on this machine"):
        connection.upload(HERE, [folder], str(folder))


# ---- The connection --------------------------------------------------------------------------------------------------------------------


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
    with pytest.raises(Unreachable, match="is not yours alone: remove it"):
        connection.socket_path(AWAY)


def test_a_folder_of_somebody_else_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    somebody = os.getuid() + 1
    (folder / f"evalmake-{somebody}").mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: somebody)
    with pytest.raises(Unreachable, match="is not yours alone: remove it"):
        connection.socket_path(AWAY)


def test_a_link_in_the_folder_s_place_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    (folder / f"evalmake-{os.getuid()}").symlink_to(tmp_path / "mine")
    with pytest.raises(Unreachable, match="is not yours alone: remove it"):
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


def test_a_connection_that_cannot_be_made_is_told_with_the_mend(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


# ---- What ssh says ---------------------------------------------------------------------------------------------------------------------


CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Offending ED25519 key in /home/ann/.ssh/known_hosts:3
Host key for login.example has changed and you have requested strict checking.
Host key verification failed.
"""
SAID = [
    ("ssh: Could not resolve hostname login.example: Name or service not known\n", "is no name that this machine can resolve"),
    ("ssh: Could not resolve hostname login.example: Temporary failure in name resolution\n", "is no name that this machine can resolve"),
    ("ssh: connect to host login.example port 22: Connection refused\n", "login.example refuses the connection: nothing listens there"),
    (CHANGED, "the host key of login.example has changed: ask the cluster's administrators"),
    ("Host key verification failed.\n", "is not known yet: `ssh login.example` once and accept it"),
    (
        "No ED25519 host key is known for login.example and you have requested strict checking.\nHost key verification failed.\n",
        "is not known yet: `ssh login.example` once and accept it",
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
        "ann@login.example was offered too many keys",
    ),
    (
        "ann@login.example: Permission denied (publickey,keyboard-interactive).\n",
        "asks for a password or a second factor, and there is no terminal to ask on; give this in a terminal",
    ),
    ("ann@login.example: Permission denied (publickey,password).\n", "(it stays open 10 minutes after its last use): ssh -fN -S /tmp/"),
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
def test_what_ssh_says_becomes_one_line_with_the_mend(said: str, told: str) -> None:
    banner = "**************************************\n* This is a private computer system. *\n"
    for text in (said, banner + said):
        line = connection.why_not(AWAY, text)
        assert told in line, line
        assert "\n" not in line
        assert "{" not in line


def test_every_mend_is_reached_by_something_that_ssh_says() -> None:
    first = [next((pattern for pattern, _ in connection.MENDS if re.search(pattern, said)), None) for said, _ in SAID]
    assert {pattern for pattern, _ in connection.MENDS} == set(first)


def test_the_person_who_was_asked_and_refused_is_not_told_to_find_a_terminal() -> None:
    line = connection.why_not(AWAY, "ann@login.example: Permission denied (publickey,keyboard-interactive).\n", asked=True)
    assert "terminal" not in line
    assert "permission denied for ann@login.example" in line


def test_what_nobody_knows_is_told_as_it_is_with_where_to_look() -> None:
    line = connection.why_not(AWAY, "kex_exchange_identification: Connection closed by remote host\n")
    assert line == (
        "the connection to ann@login.example failed: kex_exchange_identification: Connection closed by remote host; "
        "try again, or see what `ssh ann@login.example` says"
    )
    assert "ssh says nothing" in connection.why_not(AWAY, "")


# ---- Files, through a real rsync ---------------------------------------------------------------------------------------------------------


def test_folders_go_up_with_their_modes_and_come_home_without_what_is_left_out(tmp_path: Path) -> None:
    task = tmp_path / "here" / "it's a $task.0"
    (task / "cache").mkdir(parents=True)
    (task / ".secrets.env").write_text("x")
    (task / ".secrets.env").chmod(0o600)
    (task / "run.sub").write_text("#!/bin/bash\n")
    (task / "cache" / "big").write_text("x")
    there, home = tmp_path / "over there", tmp_path / "home"
    there.mkdir()
    home.mkdir()
    connection.upload(HERE, [task], f"{there}/")
    sent = there / task.name
    assert (sent / "run.sub").read_text() == "#!/bin/bash\n"
    assert stat.S_IMODE((sent / ".secrets.env").stat().st_mode) == 0o600
    other = there / "other.1"
    other.mkdir()
    (other / "log").write_text("l")
    connection.download(HERE, [str(sent), str(other)], home, ["/*/cache/", "/*/.secrets.env"])
    assert sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()) == [f"{task.name}/run.sub", "other.1/log"]


def test_a_folder_that_is_not_there_is_told_with_rsync_s_own_words(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"rsync with this login node failed with code 23: .*No such file"):
        connection.download(HERE, [str(tmp_path / "gone")], tmp_path, [])


@pytest.mark.parametrize(
    ("said", "code", "error", "told"),
    [
        ("bash: line 1: rsync: command not found\nrsync: connection unexpectedly closed\n", 12, StepFailed, "there is no rsync command on"),
        ('rsync: write failed on "/x": No space left on device (28)\n', 11, StepFailed, "No space left on device .*mend that"),
        ('rsync: mkstemp "/x" failed: Permission denied (13)\n', 23, StepFailed, "Permission denied .13.; mend that"),
        ("rsync: unknown option\n", 1, StepFailed, "rsync with this login node failed with code 1: rsync: unknown option"),
        ("rsync: connection unexpectedly closed\n", 12, ConnectionLost, "lost while copying .rsync: connection unexpectedly closed.*again"),
        ("", 255, ConnectionLost, "lost while copying"),
    ],
)
def test_what_rsync_says_is_told_and_a_line_that_breaks_is_tried_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, code: int, error: type[Exception], told: str
) -> None:
    double = tmp_path / "rsync"
    double.write_text(f"#!/bin/bash\necho x >> {tmp_path}/calls\nprintf %s {shlex.quote(said)} >&2\nexit {code}\n")
    double.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(error, match=told):
        connection.upload(HERE, [tmp_path], "/x/")
    assert len((tmp_path / "calls").read_text().split()) == (2 if error is ConnectionLost else 1)


def test_what_a_shell_on_the_cluster_presets_for_slurm_s_commands_does_not_count(
    monkeypatch: pytest.MonkeyPatch, scripts: Path, slurm: Path
) -> None:
    (scripts / "shown.sh").write_text('main() { frame env - "$(env | grep -E "^(SBATCH|SQUEUE|SACCT|SLURM)_" | sort)"; finish; }\n')
    monkeypatch.setattr(
        connection, "environment", lambda _: {**os.environ, "SBATCH_PARTITION": "x", "SQUEUE_ACCOUNT": "x", "SLURM_CONF": "kept"}
    )
    (frame,) = connection.run(Cluster("here", tunnel="local"), connection.script("shown"))
    assert frame.text == "SLURM_CONF=kept"


def test_on_a_login_node_itself_no_secret_of_ours_gets_into_a_job_s_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "planted")
    assert "HF_TOKEN" not in (connection.environment(Cluster("here", tunnel="local")) or {})
    assert connection.environment(Cluster("there")) is None
