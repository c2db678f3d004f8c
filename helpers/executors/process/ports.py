"""Ports of 127.0.0.1 that no other run of ours takes at the same moment.

A port that is merely free when looked at can be taken before the server binds it. nemo-evaluator's own search (adapters/server.py: from
3825 up) then talks to the server of another evaluation, and its scores are another model's. So a port is held by a lock until the end.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from helpers.common.errors import StepFailed

# Below the ports that systems give to outgoing connections (32768 on Linux, 49152 on macOS), above most servers' defaults.
FIRST, LAST = 20000, 29999
TRIES = 200


@dataclass
class Port:
    """A reserved port: its number, and the lock that goes with the process (or with `release`)."""

    number: int
    lock: IO[str]

    def release(self) -> None:
        """Let others have it."""
        self.lock.close()


def private_folder() -> Path:
    """evalmake-UID in the system's temporary folder, mode 0700. Raises StepFailed when it belongs to somebody else."""
    folder = Path(tempfile.gettempdir()) / f"evalmake-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise StepFailed(f"{folder} is not yours; have it removed, or set TMPDIR to another folder")
    folder.chmod(0o700)
    return folder


def reserve() -> Port:
    """A port between FIRST and LAST that nobody listens on and no other run of this user holds. Raises StepFailed after TRIES."""
    folder = private_folder()
    for number in random.sample(range(FIRST, LAST + 1), TRIES):
        lock = (folder / f"port-{number}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        if is_free(number):
            return Port(number, lock)
        lock.close()
    raise StepFailed(f"no free port between {FIRST} and {LAST}: {TRIES} were tried")


def is_free(number: int) -> bool:
    """Whether this port of 127.0.0.1 can be bound now, also by a server that does not set SO_REUSEADDR (nemo-evaluator's does not)."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return False
        return True


def answers(number: int) -> bool:
    """Whether somebody listens on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", number)) == 0
