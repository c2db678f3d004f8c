"""What a person sees of the logs of several tasks, and that a watch misses nothing when its session dies."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from helpers.cluster import connection
from helpers.cluster.connection import ConnectionLost
from helpers.common.errors import Unreachable
from helpers.executors.slurm import watching
from helpers.executors.slurm.asking import Cluster, Question
from helpers.executors.slurm.following import Lines
from helpers.executors.slurm.watching import LogPiece, StatesKnown, Watch
from slurm_double import SlurmDouble
from slurm_submissions import LOCAL, show, submission

NAMES = {"0.0": "mmlu", "0.1": "ifeval"}


def test_pieces_become_whole_lines_behind_their_tasks_and_a_second_file_is_announced() -> None:
    said: list[str] = []
    lines = Lines(NAMES, said.append, coloured=False)
    lines.take(LogPiece("0.0", "client-1.log", b"one\ntw", begins=True))
    lines.take(LogPiece("0.1", "client-2.log", b"other\n", begins=True))
    lines.take(LogPiece("0.0", "client-1.log", b"o\n\x1b[2Jred\n", begins=False))
    lines.take(LogPiece("0.0", "client-3.log", b"again, without an end", begins=True))
    lines.finish()
    assert said == [
        "mmlu | one",
        "ifeval | other",
        "mmlu | two",
        "mmlu | red",
        "mmlu | ── continues in client-3.log",
        "mmlu | again, without an end",
    ]


def test_on_a_terminal_each_task_has_a_colour_of_its_own_and_as_wide_a_name() -> None:
    said: list[str] = []
    lines = Lines(NAMES, said.append, coloured=True)
    for key in NAMES:
        lines.take(LogPiece(key, "client-1.log", b"x\n", begins=True))
    first, second = said
    assert first.partition("m")[0].startswith("\x1b[")
    assert first.partition("mmlu")[0] != second.partition("ifeval")[0]
    assert first.index("|") - first.index("mmlu") == second.index("|") - second.index("ifeval")


def test_the_complaint_about_the_url_that_counts_requests_is_no_news() -> None:
    said: list[str] = []
    lines = Lines(NAMES, said.append, coloured=False)
    lines.take(LogPiece("0.0", "client-1.log", b"[E] Failed to communicate with progress tracking server\nnext\n", begins=True))
    assert said == ["mmlu | next"]


@pytest.mark.slow
def test_a_watch_whose_session_is_killed_continues_and_shows_each_byte_once(slurm: SlurmDouble, tmp_path: Path) -> None:
    one = submission(tmp_path, "a", "b")
    for index in range(2):
        show(slurm, one, index, "RUNNING")
    log = Path(one["jobs"][0]["remote_dir"]) / "logs/client-1.log"
    log.write_bytes(b"first\n")
    watch = Watch(Question(Cluster(**LOCAL), [one]), "client")
    seen, asked, killed = b"", 0, False
    for event in watch.events():
        if isinstance(event, StatesKnown):
            asked += 1
            continue
        assert event.key == "0.0"
        seen += event.data
        if not killed and seen.endswith(b"first\n"):
            (session,) = [child for child in psutil.Process().children() if child.cmdline()[:2] == ["bash", "-s"]]
            session.send_signal(signal.SIGKILL)
            killed = True
            with log.open("ab") as file:
                file.write(b"second \xff\nthird")
        if seen.endswith(b"third"):
            watch.stop()
    assert killed
    assert asked
    assert seen == b"first\nsecond \xff\nthird"


@pytest.mark.slow
def test_a_watch_that_hears_nothing_for_long_gives_up_and_says_how_to_go_on(
    slurm: SlurmDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = submission(tmp_path, "a")
    show(slurm, one, 0, "RUNNING")
    events = Watch(Question(Cluster(**LOCAL), [one]), None).events()
    next(events)
    monkeypatch.setattr(watching, "GIVE_UP_SECONDS", 1.5)
    monkeypatch.setattr(connection, "command", lambda *_: ["bash", "-c", "exit 255"])
    for session in [child for child in psutil.Process().children() if child.cmdline()[:2] == ["bash", "-s"]]:
        session.send_signal(signal.SIGKILL)
    with pytest.raises(Unreachable, match=r"; gave up after .* h; run the same command again later"):
        list(events)


@pytest.mark.slow
def test_a_watch_waits_for_a_session_that_the_server_refuses_at_first(
    slurm: SlurmDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = submission(tmp_path, "a")
    show(slurm, one, 0, "RUNNING")
    refusal = ["bash", "-c", "echo 'mux_client_request_session: session request failed: Session open refused by peer' >&2; exit 255"]
    commands = [refusal, refusal, ["bash", "-s"]]
    monkeypatch.setattr(connection, "command", lambda *_: commands.pop(0))
    watch = Watch(Question(Cluster(**LOCAL), [one]), "client")
    for event in watch.events():
        assert isinstance(event, StatesKnown)
        watch.stop()
    assert commands == []
    monkeypatch.setattr(connection, "REFUSED_SECONDS", 0)
    monkeypatch.setattr(connection, "command", lambda *_: refusal)
    with pytest.raises(ConnectionLost, match="Session open refused by peer"):
        next(Watch(Question(Cluster(**LOCAL), [one]), "client").events())
