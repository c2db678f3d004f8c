"""Run folders: their ids, how RUN= names one, and the record of what happened in each (events.jsonl).

Only the standard library is imported when this is: Make asks for ids while it reads the Makefile, before anything is installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from helpers.common.errors import INTERRUPTED, BadInput, EvalmakeError, StepFailed, one_line

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "runs"
EVENTS = "events.jsonl"
ID_FORM = re.compile(r"\d{8}T\d{6}Z-[a-z0-9._-]+-[0-9a-f]{4}")


def now() -> str:
    """The time in UTC as text, `2026-11-22T01:35:12Z`."""
    return as_text(time.time())


def as_text(seconds: float) -> str:
    """Seconds since 1970 as such a text."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment_of(text: str) -> datetime:
    """The time that such a text says."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)


def new_id(label: str) -> str:
    """An id for a new run: when (UTC, seconds), what (the config's name), and 16 random bits for runs of the same second."""
    slug = re.sub(r"[^a-z0-9._-]+", "-", Path(label).stem.lower()).strip("-.")[:40] or "config"
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{slug}-{secrets.token_hex(2)}"


def time_of(run_id: str) -> datetime:
    """When a run was made, by its id."""
    return datetime.strptime(run_id.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)


def all_ids(runs: Path = RUNS) -> list[str]:
    """The ids of all runs, oldest first. Reads one folder listing: 10,000 runs take some 10 ms."""
    try:
        names = os.listdir(runs)  # noqa: PTH208  ten thousand names without a Path each
    except FileNotFoundError:
        return []
    return sorted(name for name in names if ID_FORM.fullmatch(name))


def resolve(run: str, runs: Path = RUNS) -> str:
    """The id of the one run that `run` names: `latest`, a whole id or path, or a unique prefix of an id.

    Raises BadInput with the candidates.
    """
    ids = all_ids(runs)
    if not ids:
        raise BadInput(f"RUN={run}: there are no runs yet; `make eval` makes one")
    if run == "latest":
        return ids[-1]
    name = Path(run).name if Path(run).resolve().parent == runs.resolve() else run.removeprefix("runs/").rstrip("/")
    if name in ids:
        return name
    matches = [i for i in ids if name and i.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise BadInput(f"RUN={run} names no run; the last is {ids[-1]} (`make runs` lists them, RUN=latest is the last)")
    listed = ", ".join(matches[-5:])
    raise BadInput(f"RUN={run} is the start of {len(matches)} runs: {listed}; give more of the id")


def run_of(path: Path | str) -> Path | None:
    """The run folder that a file of a run lies in, or None for a file elsewhere (a step run by hand) and for `-`."""
    if str(path) == "-":
        return None
    folder = Path(path).resolve().parent
    return folder if ID_FORM.fullmatch(folder.name) else None


def record(run: Path | None, step: str, **fields: Any) -> None:
    """Append one event to the run's events.jsonl, sealed over itself and the line before it; concurrent steps wait for each other.

    Raises StepFailed when it cannot be written.
    """
    if run is None or not run.is_dir():
        return
    from helpers.common.files import validate

    event = {"time": now(), "step": step, **fields}
    try:
        with (run / EVENTS).open("a+b") as log:
            with contextlib.suppress(OSError):  # some cluster filesystems are mounted without locks
                fcntl.flock(log, fcntl.LOCK_EX)
            log.seek(0)
            before = log.read()
            event["seal"] = _event_seal((before.splitlines() or [b""])[-1], event)
            validate(event, "events", EVENTS)
            torn = b"\n" if before and not before.endswith(b"\n") else b""  # a step was killed while it wrote
            log.write(torn + _event_line(event) + b"\n")
    except OSError as error:
        message = f"cannot write {run.name}/{EVENTS}: {error.strerror}; free space or mend the permissions, then give the same command"
        raise StepFailed(message) from error


def bad_event(run: Path) -> int | None:
    """The number of the first line of events.jsonl that is not as a step wrote it, or that does not follow the line before it."""
    from helpers.common.files import validate

    before = b""
    for number, line in enumerate((run / EVENTS).read_bytes().splitlines() if (run / EVENTS).exists() else [], 1):
        try:
            event = json.loads(line)
            validate(event, "events", EVENTS)
        except (ValueError, BadInput):
            return number
        if line != _event_line(event) or event.pop("seal") != _event_seal(before, event):
            return number
        before = line
    return None


def _event_line(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _event_seal(before: bytes, event: dict[str, Any]) -> str:
    return hashlib.sha256(before + _event_line(event)).hexdigest()[:16]


def is_at_work(run: Path, name: str) -> bool:
    """Whether a step of a run was begun, has not ended, and its process is there."""
    log = run / EVENTS
    last: dict[str, Any] = {}
    for line in log.read_bytes().splitlines() if log.exists() else []:
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            last = event if event.get("step") == name and event.get("event") in ("start", "end") else last
    if last.get("event") != "start":
        return False
    try:
        os.kill(int(last["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def step(run: Path | None, name: str) -> Iterator[None]:
    """Record the start and the end (seconds, exit code, and the error's text) of a step."""
    started = time.monotonic()
    record(run, name, event="start", pid=os.getpid())
    code, message = 1, "ended by a bug: see the traceback"
    try:
        yield
        code, message = 0, ""
    except EvalmakeError as error:
        code, message = error.exit_code, one_line(error)
        raise
    except KeyboardInterrupt:
        code, message = INTERRUPTED, "interrupted"
        raise
    finally:
        extra = {"error": message} if message else {}
        record(run, name, event="end", seconds=round(time.monotonic() - started, 3), exit_code=code, **extra)
