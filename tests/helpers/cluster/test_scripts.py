"""helpers/cluster/scripts.py: what a cluster is sent, and what its answer means."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from helpers.cluster import connection, scripts
from helpers.cluster.connection import Cluster, ConnectionLost, SessionRefused
from helpers.cluster.scripts import Frame
from helpers.common.errors import StepFailed, Unreachable

pytestmark = pytest.mark.slow

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


# ---- Frames ------------------------------------------------------------------------------------------------------------------------------


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
        first, rest = scripts.split_frames(data[:cut])
        second, left = scripts.split_frames(rest + data[cut:])
        assert first + second == FRAMES, cut
        assert left == b"", cut


def test_frames_come_whole_when_the_stream_comes_byte_by_byte() -> None:
    rest, found = b"", []
    for byte in as_sent(FRAMES):
        frames, rest = scripts.split_frames(rest + bytes([byte]))
        found += frames
    assert found == FRAMES


def test_what_is_no_frame_stays_as_it_is() -> None:
    for data in (b"hello\n", b"@job 0\n", b"@JOB 0 3\nabc\n", b"@job 0 x\n"):
        assert scripts.split_frames(data) == ([], data)
    assert scripts.split_frames(b"@job 0 3\nabc\nhello") == ([Frame("job", "0", b"abc")], b"hello")


def test_a_frame_as_text_has_no_line_break_at_its_end_and_no_byte_breaks_it() -> None:
    assert Frame("x", "-", "é\nb\n\n".encode()).text == "é\nb"
    assert Frame("x", "-", b"\xff").text == "\ufffd"


# ---- Answers -----------------------------------------------------------------------------------------------------------------------------


def answer(stdout: bytes, stderr: str = "", code: int = 0) -> list[Frame]:
    return scripts.answer(AWAY, stdout, stderr, code, "0123")


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
        with pytest.raises(ConnectionLost, match=r"the connection to ann@login.example was lost .*run the same command again"):
            answer(data[:cut], "", code)


def test_a_line_that_breaks_before_anything_was_said_is_lost_too() -> None:
    with pytest.raises(ConnectionLost, match=r"Connection to login.example closed by remote host"):
        answer(b"", "hello from the server\nConnection to login.example closed by remote host.\n", connection.LOST)


@pytest.mark.parametrize(("stdout", "code"), [(b"", 0), (b"", 1), (MARK + b"@job 0 3\nabc\n", 1), (b"sorry", 127)])
def test_bash_that_ends_on_its_own_is_no_lost_line(stdout: bytes, code: int) -> None:
    with pytest.raises(StepFailed, match=f"bash on ann@login.example ended with code {code}: bash: line 9: x: unbound variable"):
        answer(stdout, "Welcome to the cluster\nbash: line 9: x: unbound variable\n", code)


def test_a_login_node_without_slurm_is_reported_with_the_fix() -> None:
    with pytest.raises(Unreachable, match=r"Slurm's commands are not on the PATH.*PATH=/usr/bin.*~/.bashrc"):
        answer(MARK + b"@no-slurm - 13\nPATH=/usr/bin\n" + END)


def test_a_server_that_opens_no_more_sessions_is_tried_again_and_named_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "mux_client_request_session: session request failed: Session open refused by peer\n"
    with pytest.raises(SessionRefused):
        answer(b"", said, connection.LOST)
    tries: list[float] = []

    def refused(*_: Any) -> list[Frame]:
        tries.append(time.monotonic())
        if len(tries) == 2:
            return []
        raise SessionRefused("refused")

    monkeypatch.setattr(scripts, "_run_once", refused)
    assert scripts.run(AWAY, "x") == []
    assert len(tries) == 2
    monkeypatch.setattr(connection, "REFUSED_SECONDS", -1)
    tries[:] = [0.0, 0.0]
    with pytest.raises(Unreachable, match=r"refuses another session.*MaxSessions"):
        scripts.run(AWAY, "x")


def test_a_line_that_breaks_is_opened_again_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def lost(*_: Any) -> list[Frame]:
        tries.append(1)
        if len(tries) == 2:
            return [Frame("job", "0", b"1")]
        raise ConnectionLost("gone")

    monkeypatch.setattr(scripts, "_run_once", lost)
    assert scripts.run(AWAY, "x") == [Frame("job", "0", b"1")]
    tries[:] = [1, 1]
    with pytest.raises(ConnectionLost):
        scripts.run(AWAY, "x")
    assert len(tries) == 4


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


def test_every_value_arrives_as_it_was(script_folder: Path, slurm: Path) -> None:
    (script_folder / "echo.sh").write_text(
        '# Needs: cluster/common.sh\nmain() {\n  local index\n  frame one - "$ONE"\n  frame number - "$NUMBER"\n'
        '  for index in "${!MANY[@]}"; do frame many "$index" "${MANY[index]}"; done\n  frame none "${#NONE[@]}" ""\n  finish\n}\n'
    )
    for value in NASTY:
        frames = scripts.run(HERE, scripts.script("echo.sh", ONE=value, MANY=NASTY, NONE=[], NUMBER=7))
        assert frames[0] == Frame("one", "-", value.encode())
        assert frames[1] == Frame("number", "-", b"7")
        assert [frame.data.decode() for frame in frames[2:-1]] == NASTY
        assert frames[-1] == Frame("none", "0", b"")


def test_a_script_holds_what_it_shares_and_its_own_and_ends_by_itself() -> None:
    text = scripts.script("executors/slurm/submit.sh", RUNDIR="/r")
    assert (
        text.index("RUNDIR=/r\n")
        < text.index("look_up()")
        < text.index("queue_one()")
        < text.index("main() {")
        < text.index("main; exit\n")
    )
    assert text.endswith("main; exit\n")


SCRIPTS = sorted(str(path.relative_to(scripts.HELPERS)) for path in scripts.HELPERS.rglob("*.sh"))


@pytest.mark.parametrize("path", SCRIPTS)
def test_each_script_can_be_put_together_with_what_it_needs(path: str) -> None:
    text = scripts.text_of(path)
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "# Needs: " in (scripts.HELPERS / path).read_text() or path in ("cluster/common.sh", "images/cache.sh", "images/registry.sh")
    for part in ("frame() {", "look_up() {", "finished() {", "ask_registry() {"):
        assert text.count(f"\n{part}") <= 1, f"{part} is there twice"


# Never empty: what Python gives at least one of, and function arguments that a caller has counted.
NEVER_EMPTY = {"NAMES", "DIRS", "KEYS", "FIRSTS", "@"}
# Counted before they are expanded: `((${#jobs[@]}))`.
COUNTED = {"jobs", "ids", "left", "files"}


@pytest.mark.parametrize("path", SCRIPTS)
def test_no_array_that_may_be_empty_is_expanded_as_bash_before_4_4_cannot(path: str) -> None:
    """Under `set -u` an empty "${array[@]}" ends a bash 4.2 (CentOS 7): "${array[@]+…}" and counting first do not."""
    text = (scripts.HELPERS / path).read_text()
    counts = text + (scripts.HELPERS / "cluster/common.sh").read_text()
    for name in set(re.findall(r'(?<!\+)"\$\{(\w+)\[[@*]\]\}', text)) - NEVER_EMPTY:
        assert name in COUNTED, name
        assert f"((${{#{name}[@]}}))" in counts, f"{name} is not counted"


@pytest.mark.parametrize("known", [True, False])
def test_slurm_is_found_where_a_login_shell_finds_it_and_else_the_fix_is_reported(
    tmp_path: Path, script_folder: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Here /etc/profile is a file of the test's, and PATH a folder with bash alone."""
    profile, bare = tmp_path / "profile", tmp_path / "bare"
    bare.mkdir()
    (bare / "bash").symlink_to(str(shutil.which("bash")))
    profile.write_text(f'echo "Welcome!"; PATH={slurm}:/usr/bin:/bin; echo $NOT_SET\n' if known else "read -r line; exit_is_not_called=1\n")
    common = (scripts.HELPERS / "cluster" / "common.sh").read_text()
    (script_folder / "cluster/common.sh").unlink()
    (script_folder / "cluster/common.sh").write_text(common.replace("/etc/profile", str(profile)))
    (script_folder / "where.sh").write_text('# Needs: cluster/common.sh\nmain() { frame where - "$(command -v squeue)"; finish; }\n')
    monkeypatch.setenv("PATH", str(bare))
    if known:
        assert scripts.run(HERE, scripts.script("where.sh")) == [Frame("where", "-", f"{slurm}/squeue".encode())]
    else:
        with pytest.raises(Unreachable, match=f"this login node: Slurm's commands are not on the PATH .*PATH={bare}"):
            scripts.run(HERE, scripts.script("where.sh"))


def test_common_sh_prints_its_mark_first_and_bytes_are_counted_as_bytes(
    script_folder: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (script_folder / "words.sh").write_text(
        "# Needs: cluster/common.sh\n"
        'main() { frame word - "größe"; frame lc - "${was_lc_all}|$(env | grep -c ^LC_ALL)|$(umask)"; finish; }\n'
    )
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert scripts.run(HERE, scripts.script("words.sh")) == [Frame("word", "-", "größe".encode()), Frame("lc", "-", b"C.UTF-8|0|0077")]


@pytest.mark.parametrize("ending", ["kill -KILL $$", "kill -TERM $$", "exit 0", ""])
def test_a_script_that_is_ended_half_way_is_a_lost_connection(ending: str) -> None:
    with pytest.raises(ConnectionLost, match="this login node was lost"):
        scripts._run_once(HERE, f"{BEGIN}frame job 0 123\n{ending}\n", 20, False)


def test_a_script_that_was_killed_is_given_once_more_and_its_second_answer_counts(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    text = f"{BEGIN}if mkdir {shlex.quote(str(begun))} 2> /dev/null; then kill -KILL $$; fi\nframe job 0 5\nframe end - ''\nexit 0\n"
    assert scripts.run(HERE, text) == [Frame("job", "0", b"5")]


def test_a_bug_in_a_script_is_reported_with_bash_s_own_words() -> None:
    with pytest.raises(StepFailed, match=r"ended with code 1: .*bash: line .*nothing: unbound variable"):
        scripts.run(HERE, f'{BEGIN}echo "$nothing"\nframe end - ""\n')


def test_a_script_that_does_not_answer_in_time_is_given_up_and_ended(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(Unreachable, match="this login node did not answer within 1 s") as caught:
        scripts.run(HERE, f"{BEGIN}echo $$ > {shlex.quote(str(tmp_path / 'pid'))}\nsleep 60\n", timeout=1)
    assert not isinstance(caught.value, ConnectionLost), "whoever reads a time-out as a lost line gives the script again"
    assert time.monotonic() - began < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_what_a_shell_on_the_cluster_presets_for_slurm_s_commands_does_not_count(
    monkeypatch: pytest.MonkeyPatch, script_folder: Path, slurm: Path
) -> None:
    (script_folder / "shown.sh").write_text(
        '# Needs: cluster/common.sh\nmain() { frame env - "$(env | grep -E "^(SBATCH|SQUEUE|SACCT|SLURM)_" | sort)"; finish; }\n'
    )
    monkeypatch.setattr(
        connection, "environment", lambda _: {**os.environ, "SBATCH_PARTITION": "x", "SQUEUE_ACCOUNT": "x", "SLURM_CONF": "kept"}
    )
    (frame,) = scripts.run(Cluster("here", tunnel="local"), scripts.script("shown.sh"))
    assert frame.text == "SLURM_CONF=kept"
