"""helpers/cluster/copying.py: folders that go to a cluster and come from it."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

import pytest

from helpers.cluster import connection, copying
from helpers.cluster.connection import Cluster, ConnectionLost
from helpers.common.errors import StepFailed, Unreachable

HERE = Cluster("login.example", tunnel="local")


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
    copying.upload(HERE, [task], f"{there}/")
    sent = there / task.name
    assert (sent / "run.sub").read_text() == "#!/bin/bash\n"
    assert stat.S_IMODE((sent / ".secrets.env").stat().st_mode) == 0o600
    other = there / "other.1"
    other.mkdir()
    (other / "log").write_text("l")
    copying.download(HERE, [str(sent), str(other)], home, ["/*/cache/", "/*/.secrets.env"])
    assert sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()) == [f"{task.name}/run.sub", "other.1/log"]


def test_a_folder_that_is_not_there_is_reported_with_rsync_s_own_words(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"rsync with this login node failed with code 23: .*No such file"):
        copying.download(HERE, [str(tmp_path / "gone")], tmp_path, [])


@pytest.mark.parametrize(
    ("said", "code", "error", "told"),
    [
        ("bash: line 1: rsync: command not found\nrsync: connection unexpectedly closed\n", 12, StepFailed, "there is no rsync command on"),
        ('rsync: write failed on "/x": No space left on device (28)\n', 11, StepFailed, "No space left on device .*fix that"),
        ('rsync: mkstemp "/x" failed: Permission denied (13)\n', 23, StepFailed, "Permission denied .13.; fix that"),
        ("rsync: unknown option\n", 1, StepFailed, "rsync with this login node failed with code 1: rsync: unknown option"),
        ("rsync: connection unexpectedly closed\n", 12, ConnectionLost, "lost while copying .rsync: connection unexpectedly closed.*again"),
        ("", 255, ConnectionLost, "lost while copying"),
    ],
)
def test_what_rsync_says_is_reported_and_a_line_that_breaks_is_tried_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, code: int, error: type[Exception], told: str
) -> None:
    double = tmp_path / "rsync"
    double.write_text(f"#!/bin/bash\necho x >> {tmp_path}/calls\nprintf %s {shlex.quote(said)} >&2\nexit {code}\n")
    double.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(error, match=told):
        copying.upload(HERE, [tmp_path], "/x/")
    assert len((tmp_path / "calls").read_text().split()) == (2 if error is ConnectionLost else 1)


def test_a_server_that_opens_no_more_sessions_is_named_for_copies_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double = tmp_path / "rsync"
    double.write_text("#!/bin/bash\necho 'mux_client_request_session: Session open refused by peer' >&2\nexit 255\n")
    double.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(connection, "REFUSED_SECONDS", -1)
    with pytest.raises(Unreachable, match=r"refuses another session on the connection \(sshd's MaxSessions\)"):
        copying.upload(HERE, [tmp_path], "/x/")
