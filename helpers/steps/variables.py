"""The Makefile's variables and targets: read from the Makefile itself, checked as typed, and shown by `make help`.

Standard library only: this runs while Make reads the Makefile, before anything is installed.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from helpers.common import flags, run_folder
from helpers.common.errors import BadInput, nearest
from helpers.config import config_files

MAKEFILE = run_folder.ROOT / "Makefile"
PREFIX = "EVALMAKE_"
# Environment variables with our prefix that are not variables of the Makefile.
OTHER_ENVIRONMENT = {"CONFIG_PATH", "ENV_FILE", "DEBUG", "TEST_WEIGHTS", "STOP_AT"}
# Targets that make a new run, or continue the one in RUN.
MAKING = {"eval", "batch", "dry-run"}
# Targets for an existing run: the newest one, unless RUN names another.
LOOKING = {"status", "logs", "why", "cancel", "resume", "results", "export", "explain"}
# Those of them that take several runs at once.
SEVERAL = {"status", "cancel", "compare", "gate"}
# The deployment group that runs helpers/executors/process/local_model.py, and what names either in a config.
LOCAL_GROUP = "llamacpp"
LOCAL_SERVER = re.compile(rf"^\s*-\s*deployment:\s*['\"]?{LOCAL_GROUP}\b|helpers\.executors\.process\.local_model", re.MULTILINE)


class Entry(NamedTuple):
    """A documented target or variable: its name and one sentence."""

    name: str
    sentence: str


def targets(makefile: Path = MAKEFILE) -> list[Entry]:
    """The documented targets, in the Makefile's order: lines `name: … ## sentence`."""
    found = re.findall(r"^([a-z][a-z-]*):[^\n]*?## ([^\n]+)$", makefile.read_text(encoding="utf-8"), re.MULTILINE)
    return [Entry(*pair) for pair in found]


def variables(makefile: Path = MAKEFILE) -> list[Entry]:
    """The documented variables, in the Makefile's order: lines `#: NAME  sentence`."""
    found = re.findall(r"^#: ([A-Z_]+) +([^\n]+)$", makefile.read_text(encoding="utf-8"), re.MULTILINE)
    return [Entry(*pair) for pair in found]


def check(typed: list[str], values: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> None:
    """Check the names on Make's command line (`typed`), the EVALMAKE_ names in the environment, and the `values` of on/off variables.

    Raises BadInput for an unknown name, with the closest known one, and for a value that is neither yes nor no.
    """
    known = [entry.name for entry in variables()]
    for name in typed:
        if name not in known:
            raise BadInput(f"unknown variable {name}{nearest(name.upper(), known)}; `make help` lists them; nothing was done")
    for name in environ:
        short = name.removeprefix(PREFIX)
        if name.startswith(PREFIX) and short not in known and short not in OTHER_ENVIRONMENT:
            near = nearest(short.upper(), [*known, *OTHER_ENVIRONMENT], PREFIX)
            raise BadInput(f"unknown variable {name} in the environment{near}; unset it; nothing was done")
    for name in flags.NAMES:
        flags.is_yes(name, values.get(name))


def run_ids(run: str | None, config: str, profile: str, goals: list[str], runs: Path = run_folder.RUNS) -> tuple[list[str], bool]:
    """The ids of the runs that a command is about (several only for targets in SEVERAL), and whether the one id is for a new run.

    A goal that is a file of a run names that run; otherwise RUN does. Without either, a target in LOOKING means the newest run, and any
    other target a new one. Raises BadInput when RUN is empty or fits no run or several, and when goals and RUN contradict each other.
    """
    if "dry-run" in goals and len(MAKING & set(goals)) > 1:
        raise BadInput("dry-run contacts nothing, but eval and batch do; give one of them at a time")
    named = dict.fromkeys(match[1] for goal in goals if (match := re.match(r"(?:\./)?runs/([^/]+)/", goal)))
    for name in named:
        if not run_folder.ID_FORM.fullmatch(name) or not (runs / name).is_dir():
            raise BadInput(f"runs/{name}: no such run; `make runs` lists them")
    if run is not None:
        if not run.strip():
            raise BadInput("RUN is empty; name a run (RUN=latest is the newest), or leave RUN out")
        several = bool(goals) and set(goals) <= SEVERAL
        named |= dict.fromkeys(run_folder.resolve(one, runs) for one in (run.split() if several else [run]))
        if several:
            return list(named), False
    if len(named) > 1:
        raise BadInput(f"expected one run at a time, not {', '.join(sorted(named))}")
    if named:
        return list(named), False
    if set(goals) & LOOKING and not set(goals) & MAKING:
        # Only `explain` has something to say about a dry run, which was never submitted.
        newest = (name for name in reversed(run_folder.all_ids(runs)) if goals == ["explain"] or not is_dry_run(runs / name))
        return [next(newest, "none-yet")], False
    return [run_folder.new_id(config or profile or "local")], True


def is_dry_run(run: Path) -> bool:
    """Whether a run's request asks for a dry run; a run without a readable request is none."""
    try:
        return bool(json.loads((run / "request.json").read_bytes())["mode"] == "dry-run")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def uses_local_server(run: Path, values: Mapping[str, str]) -> bool:
    """Whether a run's config serves its model with the local model server, which is installed only for such a config.

    `run` exists already, or `values` (of the Makefile's variables) say what it will be. This is a look at texts: Make asks before anything
    is installed that could read YAML.
    """
    try:
        asked = json.loads((run / "request.json").read_bytes())
        path, overrides = run_folder.ROOT / asked["inputs"]["config"]["path"], " ".join(asked["overrides"])
    except (OSError, ValueError, KeyError, TypeError):
        try:
            path = config_files.find(values.get("CONFIG") or ("default" if values.get("PROFILE") else "local"))
        except BadInput:
            return False  # the step that makes the request says what is wrong
        overrides = values.get("SET", "")
    group = re.findall(r"(?:^|\s)deployment=(\S+)", overrides)
    try:
        return LOCAL_GROUP in group if group else bool(LOCAL_SERVER.search(path.read_text(encoding="utf-8", errors="replace")))
    except OSError:
        return False


def page(environ: Mapping[str, str] = os.environ) -> str:
    """The text of `make help`. A variable that is set shows its value, from EVALMAKE_NAME, which Make exports."""
    lines = ["evalmake evaluates language models: config in, scores out, and every step leaves a file in runs/ID/.", ""]
    lines += ["  make eval                                           a small model on this machine, in a minute"]
    lines += ['  make eval PROFILE=CLUSTER TASKS="adlr_mmlu hellaswag"   your model on a cluster of env.toml', "", "Targets"]
    lines += [f"  {entry.name:<13} {entry.sentence}" for entry in targets()]
    lines += ["", f"Variables: make TARGET NAME=value, or {PREFIX}NAME in the environment"]
    defaults = {"CONFIG": "default" if environ.get(f"{PREFIX}PROFILE") else "local"}
    for entry in variables():
        value = environ.get(PREFIX + entry.name, defaults.get(entry.name))
        lines.append(f"  {entry.name:<13} {entry.sentence}" + ("" if value is None else f" [now {value!r}]"))
    return "\n".join(lines)
