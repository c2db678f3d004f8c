"""A double of a server whose processes rename themselves, as vLLM's do: /proc/PID/environ and the command line are overwritten.

    python tests/doubles/renaming_server.py --port 8080 --pids FOLDER

It answers as endpoint.py does. Beside it run ENGINE; WORKER, which prints nowhere and whose parent has ended; and AWAY, a child of ENGINE
in a session of its own, which prints nowhere either. None of them heeds SIGTERM. Each writes its pid to FOLDER/NAME once it is renamed.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from endpoint import Endpoint

NAMES = ("ENGINE", "WORKER", "AWAY")
PR_SET_NAME = 15


def rename(name: str) -> None:
    """Write over the arguments and the environment, where the kernel has them, as setproctitle does."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[48])  # arg_start, env_end
    text = f"VLLM::{name}".encode()
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, text, len(text))
    ctypes.CDLL(None).prctl(PR_SET_NAME, text, 0, 0, 0)


def serve_as(name: str, pids: Path) -> None:
    """Be one of NAMES until somebody kills us."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if name == "ENGINE":
        for other in NAMES[1:]:
            start(other, pids, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=other == "AWAY")
    rename(name)
    (pids / name).write_text(str(os.getpid()))
    time.sleep(600)


def start(name: str, pids: Path, **options: object) -> None:
    """Start one of NAMES."""
    command = [sys.executable, __file__, "--name", name, "--pids", str(pids)]
    between = ["sh", "-c", '"$@" &', "sh"] if name == "WORKER" else []  # a parent that ends
    subprocess.Popen([*between, *command], **options)  # type: ignore[call-overload]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int)
    parser.add_argument("--pids", type=Path, required=True)
    parser.add_argument("--name", choices=NAMES)
    options = parser.parse_args()
    if options.name:
        serve_as(options.name, options.pids)
    else:
        options.pids.mkdir(exist_ok=True)
        start(NAMES[0], options.pids)
        while not all((options.pids / name).exists() and (options.pids / name).read_text() for name in NAMES):
            time.sleep(0.02)
        Endpoint(options.port).server.serve_forever()
