"""Ports that two evaluations never share."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from checkout import ROOT
from helpers.common.errors import StepFailed
from helpers.executors.process import ports


def test_a_reserved_port_is_free_and_nobody_else_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "FIRST", 29990)
    monkeypatch.setattr(ports, "LAST", 29999)
    monkeypatch.setattr(ports, "TRIES", 10)
    monkeypatch.setattr(ports.tempfile, "gettempdir", lambda: str(tmp_path))
    free = sum(ports.is_free(number) for number in range(29990, 30000))
    held = [ports.reserve() for _ in range(free)]
    assert len({port.number for port in held}) == free > 0
    with pytest.raises(StepFailed, match="no free port between 29990 and 29999"):
        ports.reserve()
    assert all(ports.is_free(port.number) for port in held)
    held[0].release()
    assert ports.reserve().number == held[0].number


def test_two_processes_that_reserve_at_once_never_get_the_same_port() -> None:
    code = "from helpers.executors.process import ports; p = [ports.reserve() for _ in range(300)]; "
    code += "print(*[x.number for x in p], flush=True); input()"
    taken: list[str] = []
    running = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=-1, stdout=-1, text=True) for _ in range(3)]
    for process in running:
        assert process.stdout
        taken += process.stdout.readline().split()
    for process in running:
        process.communicate("\n")
    assert len(taken) == len(set(taken)) == 900


def test_a_port_that_somebody_listens_on_answers_and_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        assert ports.answers(number)
        assert not ports.is_free(number)
    assert not ports.answers(number)


def test_the_folder_of_the_locks_is_private_and_no_link_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = ports.private_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StepFailed, match="not yours"):
        ports.private_folder()
