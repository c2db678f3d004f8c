"""Processes of this machine: starting them, finding all that belongs to what we started, and ending it.

A mark in the environment finds nearly all. A program that renames itself (vLLM's VLLM::EngineCore) overwrites its environment, and the mark
is gone: so a session, the file that it prints to, and its parents count too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterable
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

    What it started is in its session, has the mark of its `job` when it left that session, or descends from one of these. The child may
    have ended already.
    """
    import psutil

    for number in (signal.SIGTERM, signal.SIGKILL):
        members = family(lambda one: os.getsid(one.pid) == process.pid or one.environ().get(JOB_MARK) == job)
        for member in members:
            with contextlib.suppress(psutil.Error):
                member.send_signal(number)
        wait_until_ended(members, GRACE_SECONDS)
        process.poll()
        if not members:
            return


def marked(mark: str, value: str) -> list[psutil.Process]:
    """Every live process that has the variable `mark` with this value in its environment."""
    return _alive(lambda process: process.environ().get(mark) == value)


def family(is_ours: Callable[[psutil.Process], bool], sessions: Collection[int] = ()) -> list[psutil.Process]:
    """The live processes that `is_ours` names, with their sessions as far as those are among `sessions`, and with all their descendants.

    A session's number may be that of a stranger by now, so it counts only while it has a process of ours in it. We ourselves do not count.
    """
    import psutil

    everyone = {one.pid: one for one in psutil.process_iter(["ppid", "status"]) if one.info["status"] != psutil.STATUS_ZOMBIE}
    numbers, parents = {pid: _session(pid) for pid in everyone}, {pid: one.info["ppid"] for pid, one in everyone.items()}
    found = {pid for pid, one in everyone.items() if _holds(is_ours, one)}
    known = {numbers[pid] for pid in found}.intersection(sessions)
    found |= {pid for pid, number in numbers.items() if number in known}
    while children := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= children
    return [everyone[pid] for pid in found - {os.getpid()}]


def outputs(process: psutil.Process) -> set[tuple[int, int]]:
    """Where its standard output and error go, each as `file_id`. Only Linux tells; elsewhere it is empty. Raises OSError."""
    return {found for number in (1, 2) if (found := file_id(f"/proc/{process.pid}/fd/{number}"))}


def file_id(path: Path | str) -> tuple[int, int] | None:
    """What a file has in common with nothing else on this machine, whatever it is called; None when it does not exist."""
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def wait_until_ended(processes: Iterable[psutil.Process], seconds: float) -> None:
    """Wait until all have ended. A zombie counts as ended: in a container process 1 may never reap it, and psutil would wait for that."""
    deadline = time.monotonic() + seconds
    while any(is_alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)


def end_with_caller() -> None:
    """Have this process end, as by SIGTERM, once the command that started it is gone: the parent, and above a shell of Make's, Make.

    For commands that would otherwise follow jobs for ever after their `make` was killed. A thread looks every CALLER_SECONDS. A script that
    somebody started with nohup goes on without the shell it was started in.
    """
    import psutil

    is_of_make = "MAKELEVEL" in os.environ
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN and not is_of_make:
        return
    me = psutil.Process()
    watched = [(me, me.ppid())]
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(me.ppid())
        if is_of_make and parent.name() in ("bash", "sh"):
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


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:  # it has just ended
        return 0


def _alive(fits: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    import psutil

    return [one for one in psutil.process_iter(["status"]) if one.info["status"] != psutil.STATUS_ZOMBIE and _holds(fits, one)]


def _holds(fits: Callable[[psutil.Process], bool], process: psutil.Process) -> bool:
    import psutil

    try:
        return fits(process)
    except (psutil.Error, OSError):  # it has just ended, or is somebody else's
        return False
