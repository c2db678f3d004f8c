"""Run folders: their ids, how RUN= names one, and the record of what happened in each (events.jsonl).

Only the standard library is imported here: Make asks for ids while it reads the Makefile, before anything is installed.
"""

from __future__ import annotations

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

from helpers.errors import INTERRUPTED, BadInput, EvalmakeError, one_line

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs"
ID_FORM = re.compile(r"\d{8}T\d{6}Z-[a-z0-9._-]+-[0-9a-f]{4}")


def now() -> str:
    """The time in UTC as text, `2026-11-22T01:35:12Z`."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_id(label: str) -> str:
    """An id for a new run: when (UTC, seconds), what (the config's name), and 16 random bits for runs of the same second."""
    slug = re.sub(r"[^a-z0-9._-]+", "-", Path(label).stem.lower()).strip("-.")[:40] or "config"
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{slug}-{secrets.token_hex(2)}"


def all_ids(runs: Path = RUNS) -> list[str]:
    """The ids of all runs, oldest first. Reads one folder listing: 10,000 runs take some 10 ms."""
    try:
        names = os.listdir(runs)  # noqa: PTH208  ten thousand names without a Path each
    except FileNotFoundError:
        return []
    return sorted(name for name in names if ID_FORM.fullmatch(name))


def resolve(run: str, runs: Path = RUNS) -> str:
    """The id of the one run that `run` names: `latest`, a whole id, or a unique prefix of one. Raises BadInput with the candidates."""
    ids = all_ids(runs)
    if not ids:
        raise BadInput(f"RUN={run}: there are no runs yet; `make eval` makes one")
    if run == "latest":
        return ids[-1]
    name = run.rstrip("/").removeprefix("runs/")
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
    folder = Path(path).resolve().parent
    return folder if ID_FORM.fullmatch(folder.name) else None


def record(run: Path | None, step: str, **fields: Any) -> None:
    """Append one event to the run's events.jsonl: a single write of one line, so that concurrent steps do not mix theirs."""
    if run is None or not run.is_dir():
        return
    line = json.dumps({"time": now(), "step": step, **fields}, ensure_ascii=False) + "\n"
    descriptor = os.open(run / "events.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode("utf-8", "surrogateescape"))
    finally:
        os.close(descriptor)


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
