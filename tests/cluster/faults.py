"""What goes wrong on clusters, on demand. Each is a context manager that undoes it at its end; down.sh and up.sh undo all of it.

with stopped(bed, "slurmctld"): ...            no controller; also "slurmdbd", "sshd", "registry"
with frozen(bed, "slurmctld"): ...             there, but it does not answer
with node_killed(bed, "n1"): ...               a power cut: its jobs are gone, and Slurm finds out in SLURMD_TIMEOUT seconds
with node_drained(bed, "n1"): ...              takes no new jobs; Slurm's word for it at once
with sbatch_fails(bed, call=2): ...            the second sbatch from now on fails, before or after it queued the job
with enroot_is(bed, "download", "5"): ...     an import waits so many seconds there, or fails ("fail"); or at "squash", with half a file
with without_pyxis(bed): ...                  srun knows no --container-image
with prolog_fails(bed): ...                    the script that nodes run before each job fails
with greeting(bed, "text"): ...                Slurm's commands on the login node print this around their answers
with disk_full(bed) as folder: ...             nothing fits into bed/small any more
with network(bed, latency=0.1) as line: ...    all ssh goes through a line that is slow, cut (line.cut()), or dead (line.dead = True)
kill_sessions(bed)                             every login session ends, as when the login node reboots
"""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cluster.testbed import Bed, until


def children(pid: int) -> list[int]:
    """The processes that this one started."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def _ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def kill_sessions(bed: Bed) -> int:
    """End every login session, with no farewell to its client; how many there were. The next login succeeds."""
    sessions = children(bed.pid("sshd"))
    for session in sessions:
        for process in (*children(session), session):  # without privilege separation there is no child
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    return len(sessions)


@contextlib.contextmanager
def _gone(bed: Bed, daemon: str, number: signal.Signals) -> Iterator[None]:
    """A daemon or node ends by this signal; at the end what is missing is started again."""
    pid = bed.pid(daemon)
    os.kill(pid, number)
    until(lambda: _ended(pid), 20)
    try:
        yield
    finally:
        bed.up()


@contextlib.contextmanager
def stopped(bed: Bed, daemon: str) -> Iterator[None]:
    """A daemon is stopped in good order; at the end it is started again (about 1 s)."""
    with _gone(bed, daemon, signal.SIGTERM):
        yield


@contextlib.contextmanager
def frozen(bed: Bed, daemon: str) -> Iterator[None]:
    """A daemon is there, accepts connections, and answers nothing."""
    pid = bed.pid(daemon)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def node_killed(bed: Bed, node: str) -> Iterator[None]:
    """A node loses power. `bed.slurm("scontrol", "update", "nodename=n1", "state=down", "reason=x")` spares waiting for Slurm to notice."""
    with _gone(bed, node, signal.SIGKILL):
        yield


@contextlib.contextmanager
def node_drained(bed: Bed, node: str, reason: str = "maintenance") -> Iterator[None]:
    """A node takes no new jobs."""
    bed.slurm("scontrol", "update", f"nodename={node}", "state=drain", f"reason={reason}")
    try:
        yield
    finally:
        bed.slurm("scontrol", "update", f"nodename={node}", "state=resume")


@contextlib.contextmanager
def sbatch_fails(
    bed: Bed, call: int, when: str = "before", message: str = "Batch job submission failed: Socket timed out on send/recv operation"
) -> Iterator[None]:
    """The login node's sbatch fails at its Nth call from now on: before anything is queued, or after (the job is there, its answer lost).

    A call with --test-only does not count, nor one out of a job.
    """
    plan = bed.folder / "faults/sbatch"
    calls = plan.with_name("sbatch.calls")
    calls.unlink(missing_ok=True)
    plan.write_text(f"{call} {when} {message}\n")
    try:
        yield
    finally:
        plan.unlink(missing_ok=True)
        calls.unlink(missing_ok=True)


@contextlib.contextmanager
def enroot_is(bed: Bed, point: str, what: str) -> Iterator[Callable[[], None]]:
    """Imports wait at `download` or `squash` so many seconds, or fail there; at `generation` 4, they are those of enroot 4.

    What is given lets them continue at once.
    """
    plan = bed.folder / f"faults/enroot-{point}"
    plan.write_text(what)
    go_on = functools.partial(plan.unlink, missing_ok=True)
    try:
        yield go_on
    finally:
        go_on()


@contextlib.contextmanager
def _text_of(path: Path, text: str) -> Iterator[None]:
    """A file holds this text; at the end it is as it was."""
    before = path.read_text() if path.exists() else None
    path.write_text(text)
    try:
        yield
    finally:
        path.unlink() if before is None else path.write_text(before)


def without_pyxis(bed: Bed) -> contextlib.AbstractContextManager[None]:
    """The nodes have no plugin that runs containers: srun does not know its options."""
    return _text_of(bed.folder / "etc/plugstack.conf", "")


@contextlib.contextmanager
def greeting(bed: Bed, text: str) -> Iterator[None]:
    """Slurm's commands on the login node print this around their answers, and sbatch names the cluster (`4242;evalmake`)."""
    say = f"printf '%s\\n' {shlex.quote(text)}"
    with contextlib.ExitStack() as stack:
        for name in ("sbatch", "squeue", "sacct", "scancel"):
            path = bed.folder / "bin" / name
            lines = ("#!/bin/bash", "export SLURM_CLUSTERS=evalmake", say, f'/usr/bin/{name} "$@"', "code=$?", say, "exit $code")
            stack.enter_context(_text_of(path, "\n".join(lines) + "\n"))
            path.chmod(0o755)
        yield


@contextlib.contextmanager
def prolog_fails(bed: Bed) -> Iterator[None]:
    """The script that a node runs before each job fails; Slurm drains the node."""
    config, prolog = bed.folder / "etc/slurm.conf", bed.folder / "bin/prolog"
    prolog.write_text("#!/bin/sh\nexit 3\n")
    prolog.chmod(0o755)
    try:
        with _text_of(config, f"{config.read_text()}\nProlog={bed.name}/bin/prolog\n"):
            bed.slurm("scontrol", "reconfigure")
            yield
    finally:
        bed.slurm("scontrol", "reconfigure")
        for node in bed.slurm("sinfo", "-h", "-N", "-p", "batch", "-t", "drain", "-o", "%N").split():
            bed.slurm("scontrol", "update", f"nodename={node}", "state=resume")


@contextlib.contextmanager
def disk_full(bed: Bed, left: int = 0) -> Iterator[Path]:
    """The folder bed/small (16 MB) has `left` bytes left, in whole pages; give it to a profile as its remote_job_dir."""
    folder = bed.name / "small"
    filler = folder / ".filler"
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize - left
    filler.write_bytes(b"\0" * max(0, free // space.f_frsize * space.f_frsize))
    try:
        yield folder
    finally:
        filler.unlink(missing_ok=True)


class Line:
    """What lies between ssh and the login node: each packet is `latency` seconds on its way; `dead` loses all; cut() drops connections."""

    def __init__(self, port: int, latency: float) -> None:
        self.latency = latency
        self.dead = False
        self.connections = 0
        self._target = port
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self.connections += 1
                self._open += [near, far]
                threading.Thread(target=self._carry, args=(near, far), daemon=True).start()
                threading.Thread(target=self._carry, args=(far, near), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        """One direction. Reading and sending are two threads, so that packets wait side by side: latency, not bandwidth."""
        queue: list[tuple[float, bytes]] = []
        arrived = threading.Condition()

        def deliver() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with arrived:
                        arrived.wait_for(lambda: queue)
                        due, data = queue.pop(0)
                    time.sleep(max(0.0, due - time.monotonic()))
                    if not data:
                        sink.shutdown(socket.SHUT_WR)
                        return
                    sink.sendall(data)

        threading.Thread(target=deliver, daemon=True).start()
        data = b"-"
        while data:
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            if self.dead:
                continue
            with arrived:
                queue.append((time.monotonic() + self.latency, data))
                arrived.notify()

    def cut(self) -> None:
        """Drop every connection at once; new ones are carried."""
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open = []

    def close(self) -> None:
        """No connection any more, old or new: refused."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


@contextlib.contextmanager
def network(bed: Bed, latency: float = 0.0) -> Iterator[Line]:
    """All of the clients' ssh goes through a Line: latency in seconds, each way."""
    settings = (bed.folder / "etc/settings").read_text()
    line = Line(int(settings.partition("port=")[2].split()[0]), latency)
    override = bed.folder / "faults/ssh_config"
    override.write_text(f"Host {bed.alias}\n    Port {line.port}\n")
    try:
        yield line
    finally:
        override.unlink(missing_ok=True)
        line.close()
