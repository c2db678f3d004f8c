"""common/processes.py: what we started is found by its mark, and ended, wherever it went."""

import os
import subprocess
import sys

import pytest

from helpers.common import processes

# Starts a process that leaves the group and ignores SIGTERM, says its pid, and waits.
PARENT = """
import signal, subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
process = subprocess.Popen([sys.executable, "-c", child], start_new_session=True, stdout=subprocess.PIPE)
process.stdout.readline()
print(process.pid, flush=True)
time.sleep(60)
"""


def test_a_group_is_ended_with_what_left_it_and_ignores_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.1)
    job = f"test-{os.getpid()}"
    environ = {**os.environ, processes.JOB_MARK: job}
    with subprocess.Popen([sys.executable, "-c", PARENT], env=environ, start_new_session=True, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert {process.pid for process in processes.marked(processes.JOB_MARK, job)} == {parent.pid, child}
        assert {process.pid for process in processes.family(lambda one: one.pid == parent.pid)} == {parent.pid, child}
        processes.end_group(parent, job)
        assert parent.returncode is not None
    assert processes.marked(processes.JOB_MARK, job) == []
