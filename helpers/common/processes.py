"""Processes of this machine: starting them, finding all that we started by a mark in their environment, and ending them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil  # 0.02 s; only callers that look at processes pay for it

# Marks what belongs together: the processes of one task, of the model server (INVOCATION.server), or of an export.
JOB_MARK = "EVALMAKE_JOB"
CALLER_SECONDS = 1.0  # how often a follower looks whether its caller is still there
GRACE_SECONDS = 4.0  # between SIGTERM and SIGKILL; nemo-evaluator takes at most 3


def start(command: list[str], log: Path, folder: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a command in `folder`, in a session of its own and without input. What it prints goes to the end of `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=env,
            start_new_session=True,
        )


def end_group(process: subprocess.Popen[bytes], job: str) -> None:
    """Stop a child and everything that it started: SIGTERM, GRACE_SECONDS, SIGKILL.

    What it started is in its process group, or has the mark of its `job` when it left that group. The child may have ended already.
    """
    import psutil

    for number in (signal.SIGTERM, signal.SIGKILL):
        members = {member.pid: member for member in (*in_group(process.pid), *marked(JOB_MARK, job))}
        for member in members.values():
            with contextlib.suppress(psutil.Error):
                member.send_signal(number)
        wait_until_ended(members.values(), GRACE_SECONDS)
        process.poll()
        if not members:
            return


def marked(mark: str, value: str) -> list[psutil.Process]:
    """Every live process that has the variable `mark` with this value in its environment."""
    return _alive(lambda process: process.environ().get(mark) == value)


def in_group(group: int) -> list[psutil.Process]:
    """The live processes of a process group."""
    return _alive(lambda process: os.getpgid(process.pid) == group)


def wait_until_ended(processes: Iterable[psutil.Process], seconds: float) -> None:
    """Wait until all have ended. A zombie counts as ended: in a container process 1 may never reap it, and psutil would wait for that."""
    deadline = time.monotonic() + seconds
    while any(is_alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)


def end_with_caller() -> None:
    """Have this process end, as by SIGTERM, once the command that started it is gone: the parent, and above a shell of Make's, Make.

    For commands that would otherwise follow jobs for ever after their `make` was killed. A thread looks every CALLER_SECONDS.
    """
    import psutil

    me = psutil.Process()
    watched = [(me, me.ppid())]
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(me.ppid())
        if "MAKELEVEL" in os.environ and parent.name() in ("bash", "sh"):
            watched.append((parent, parent.ppid()))  # Make's shell waits for us, and does not notice that Make is gone

    def watch() -> None:
        with contextlib.suppress(psutil.Error):
            while all(process.ppid() == was for process, was in watched):
                time.sleep(CALLER_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs; a zombie does not, nor does another process that got its pid."""
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _alive(fits: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if fits(process) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
