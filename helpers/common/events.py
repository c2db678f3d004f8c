"""events.jsonl of a run: a log for people, one JSON object per line. Nothing reads it to decide anything."""

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import Any

from helpers.common import run_folder
from helpers.common.errors import StepFailed

NAME = "events.jsonl"


def append(run: Path | None, step: str, **fields: Any) -> None:
    """Append one event of a step to the run's log in a single write, under a lock; does nothing where there is no run folder.

    Raises StepFailed when the log cannot be written.
    """
    if run is None or not run.is_dir():
        return
    event = {"time": run_folder.now(), "step": step, **fields}
    line = json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"
    try:
        with (run / NAME).open("a+b", buffering=0) as log:
            with contextlib.suppress(OSError):  # some cluster filesystems are mounted without locks
                fcntl.flock(log, fcntl.LOCK_EX)
            if log.seek(0, os.SEEK_END):
                log.seek(-1, os.SEEK_END)
                line = line if log.read(1) == b"\n" else b"\n" + line  # a full disk tore the last line
            log.write(line)
    except OSError as error:
        raise StepFailed(f"cannot write {run.name}/{NAME}: {error.strerror}; {run_folder.FREE_OR_FIX}") from error
