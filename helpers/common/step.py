"""The record of a run's steps: exit.json says how the last step ended, and a lock says whether one is at work.

exit.json holds the step's name, exit code and error. The next step removes it when it starts, so a missing one means that a step is at work
or was killed. A step at work holds the lock .at-work, which ends with its process. events.jsonl tells the same to people.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from helpers.common import events, files, run_folder
from helpers.common.errors import INTERRUPTED, EvalmakeError, StepFailed, one_line

EXIT, LOCK = "exit.json", ".at-work"


class Exit(NamedTuple):
    """How a step ended: its name, its exit code (0 is success), and the error's text, empty on success."""

    step: str
    code: int
    error: str


@contextmanager
def recorded(run: Path | None, name: str) -> Iterator[None]:
    """Record the step `name` of a run while the block runs: its start, its end, its exit code and its error.

    Does nothing for a step run by hand (`run` None). Raises StepFailed when the run's folder cannot be written.
    """
    started = time.monotonic()
    events.append(run, name, event="start", pid=os.getpid())
    with _at_work(run):
        clear(run)
        code, error = 1, "ended by a bug: see the traceback"
        try:
            yield
            code, error = 0, ""
        except EvalmakeError as failure:
            code, error = failure.exit_code, one_line(failure)
            raise
        except KeyboardInterrupt:
            code, error = INTERRUPTED, "interrupted"
            raise
        finally:
            # When a step failed, its own error is the one to see, not that this could not be written as well.
            with contextlib.suppress(StepFailed) if code else contextlib.nullcontext():
                _write(run, Exit(name, code, error), time.monotonic() - started)


def _write(run: Path | None, ended: Exit, seconds: float) -> None:
    if run is None or not run.is_dir():
        return
    error = {"error": ended.error} if ended.error else {}
    data = {"step": ended.step, "ended_at": run_folder.now(), "exit_code": ended.code, **error}
    files.write_json(run / EXIT, data, "exit")
    events.append(run, ended.step, event="end", seconds=round(seconds, 3), exit_code=ended.code, **error)


def clear(run: Path | None) -> None:
    """Remove the exit of an earlier step. Raises StepFailed when it cannot be removed."""
    if run is None or not run.is_dir():
        return
    try:
        (run / EXIT).unlink(missing_ok=True)
    except OSError as error:
        raise StepFailed(f"cannot remove {run.name}/{EXIT}: {error.strerror}; {run_folder.FREE_OR_FIX}") from error


def last_exit(run: Path) -> Exit | None:
    """How the last step of the run ended; None when it is still at work or was killed. Raises BadInput when exit.json was edited."""
    if not (run / EXIT).exists():
        return None
    data = files.read_json(run / EXIT, "exit")
    return Exit(data["step"], data["exit_code"], data.get("error", ""))


@contextmanager
def _at_work(run: Path | None) -> Iterator[None]:
    if run is None or not run.is_dir():
        yield
        return
    try:
        lock = (run / LOCK).open("a")
    except OSError as error:
        raise StepFailed(f"cannot write {run.name}/{LOCK}: {error.strerror}; {run_folder.FREE_OR_FIX}") from error
    with lock:
        with contextlib.suppress(OSError):  # some cluster filesystems are mounted without locks
            fcntl.flock(lock, fcntl.LOCK_SH)  # shared: two terminals may be at work on one run
        yield


def is_at_work(run: Path) -> bool:
    """Whether a step is at work on the run. On a filesystem without locks: whether its last step has not recorded its end."""
    try:
        with (run / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        return not (run / EXIT).exists()
    return False
