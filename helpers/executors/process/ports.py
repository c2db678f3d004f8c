"""Ports of 127.0.0.1 that no other run of ours takes at the same moment.

A port that is free now may be taken before the server binds it. nemo-evaluator's own search (adapters/server.py: from 3825 up) would then
talk to the server of another evaluation, and report the scores of another model. So a lock reserves a port for the whole run.
"""

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from helpers.common.errors import StepFailed

# Below the ports of outgoing connections (from 32768 on Linux, 49152 on macOS), above the default ports of most servers.
FIRST, LAST = 20000, 29999
TRIES = 200


@dataclass
class Port:
    """A reserved port: its number, and the lock, which ends with the process or with `release`."""

    number: int
    lock: IO[str]

    def release(self) -> None:
        """End the reservation."""
        self.lock.close()


def private_folder() -> Path:
    """evalmake-UID in the system's temporary folder, mode 0700. Raises StepFailed when it belongs to somebody else."""
    folder = Path(tempfile.gettempdir()) / f"evalmake-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise StepFailed(f"{folder} is not yours; have its owner remove it, or set TMPDIR to another folder")
    folder.chmod(0o700)
    return folder


def reserve() -> Port:
    """A port between FIRST and LAST that is free and that no other run of this user has reserved. Raises StepFailed after TRIES."""
    folder = private_folder()
    for number in random.sample(range(FIRST, LAST + 1), TRIES):
        lock = (folder / f"port-{number}.lock").open("w")
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_free(number):
                return Port(number, lock)
        lock.close()
    raise StepFailed(f"no free port between {FIRST} and {LAST} in {TRIES} tries; run fewer evaluations at a time")


def is_free(number: int) -> bool:
    """Whether this port of 127.0.0.1 can be bound now, even by a server that does not set SO_REUSEADDR, such as nemo-evaluator's."""
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
