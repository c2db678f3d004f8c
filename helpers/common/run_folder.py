"""Run folders: their ids, and how RUN= names one.

Standard library only: Make asks for ids while it reads the Makefile, before anything is installed.
"""

import os
import re
import secrets
import time
from datetime import datetime, timezone
from pathlib import Path

from helpers.common.errors import BadInput

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "runs"
# How every message about a folder that cannot be written ends.
FREE_OR_FIX = "free disk space or fix the permissions, then run the same command again"
ID_FORM = re.compile(r"\d{8}T\d{6}Z-[a-z0-9._-]+-[0-9a-f]{4}")


def now() -> str:
    """The time now in UTC as text, `2026-11-22T01:35:12Z`."""
    return as_text(time.time())


def as_text(seconds: float) -> str:
    """Seconds since 1970 as text in the form of `now`."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment_of(text: str) -> datetime:
    """The time of a text in the form of `now`."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)


def new_id(label: str) -> str:
    """An id for a new run: the time (UTC, seconds), the config's name, and 16 random bits for runs that start in the same second."""
    name = re.sub(r"\.ya?ml$", "", Path(label).name.lower())  # llama-3.1 is a name, and its .1 no suffix
    slug = re.sub(r"[^a-z0-9._-]+", "-", name).strip("-.")[:40] or "config"
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{slug}-{secrets.token_hex(2)}"


def time_of(run_id: str) -> datetime:
    """When a run was made, from its id."""
    return datetime.strptime(run_id.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)


def all_ids(runs: Path = RUNS) -> list[str]:
    """The ids of all runs, oldest first. Reads one folder listing: 10,000 runs take about 10 ms."""
    try:
        names = os.listdir(runs)  # noqa: PTH208  no Path object for each of 10,000 names
    except FileNotFoundError:
        return []
    return sorted(name for name in names if ID_FORM.fullmatch(name))


def resolve(run: str, runs: Path = RUNS, variable: str = "RUN") -> str:
    """The id of the run that `run`, a value of `variable`, names: `latest`, an id, a path, or the start of one id only.

    Raises BadInput, with the candidates where there are several.
    """
    ids = all_ids(runs)
    if not ids:
        raise BadInput(f"{variable}={run}: there are no runs yet; `make eval` makes one")
    if run == "latest":
        return ids[-1]
    name = Path(run).name if Path(run).resolve().parent == runs.resolve() else run.removeprefix("runs/").rstrip("/")
    if name in ids:
        return name
    matches = [i for i in ids if name and i.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise BadInput(f"{variable}={run}: no such run; the newest is {ids[-1]} ({variable}=latest); `make runs` lists all")
    listed = ", ".join(matches[-5:])
    raise BadInput(f"{variable}={run} is the start of {len(matches)} runs: {listed}; type more of the id")


def run_of(path: Path | str) -> Path | None:
    """The run folder that holds the file, or None for a file outside a run (a step run by hand) and for `-`."""
    if str(path) == "-":
        return None
    folder = Path(path).resolve().parent
    return folder if ID_FORM.fullmatch(folder.name) else None
