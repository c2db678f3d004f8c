"""common/processes.py: what we started is found by its mark, and ended, wherever it went."""

import os
import subprocess
import sys
import time

import pytest

from checkout import ROOT
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


FOLLOWER = "from helpers.common import processes; import time; processes.end_with_caller(); print('follows', flush=True); time.sleep(60)"
# Starts the follower, and waits for it, as Make and its shell do; says the pid of the one in the middle too.
IN_BETWEEN = f"""
import os, subprocess, sys, time
name = sys.argv[1]
command = [sys.executable, "-c", "{FOLLOWER}"]
if name == "shell":
    command = ["bash", "-c", '"$@"; true', "bash", *command]
subprocess.Popen(command)
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize("between", ["nothing", "shell"])
def test_a_follower_ends_soon_after_the_make_that_started_it_was_killed(between: str) -> None:
    environ = {**os.environ, "MAKELEVEL": "1", processes.JOB_MARK: f"follower-{between}-{os.getpid()}"}
    with subprocess.Popen(
        [sys.executable, "-c", IN_BETWEEN, between], env=environ, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
    ) as make:
        assert make.stdout
        assert make.stdout.readline() == b"follows\n"
        make.kill()
        make.wait()
        assert make.stdout.read() == b"", "the follower holds the pipe until it ends"
    assert not [one for one in processes.marked(processes.JOB_MARK, environ[processes.JOB_MARK]) if one.name() != "bash"]


@pytest.mark.slow
def test_a_follower_that_was_started_with_nohup_outlives_its_shell() -> None:
    job = f"nohup-{os.getpid()}"
    environ = {name: value for name, value in os.environ.items() if name != "MAKELEVEL"} | {processes.JOB_MARK: job}
    command = ["bash", "-c", 'nohup "$@" > /dev/null 2>&1 & sleep 1.5', "bash", sys.executable, "-c", FOLLOWER]
    subprocess.run(command, env=environ, cwd=ROOT, check=True)
    time.sleep(2 * processes.CALLER_SECONDS)
    left = processes.marked(processes.JOB_MARK, job)
    assert len(left) == 1
    left[0].kill()


@pytest.mark.slow
def test_a_follower_stays_while_its_caller_does() -> None:
    process = subprocess.Popen([sys.executable, "-c", FOLLOWER], cwd=ROOT, stdout=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(3 * processes.CALLER_SECONDS)
    process.kill()
    process.communicate()
