"""The variables of the Makefile: which exist (read from the Makefile itself), refusing unknown ones, and the run that a command means.

Only the standard library is imported: this runs while Make reads the Makefile, before anything is installed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from helpers.common import run_folder
from helpers.common.errors import BadInput, nearest

MAKEFILE = run_folder.ROOT / "Makefile"
PREFIX = "EVALMAKE_"
# Environment variables with our prefix that are no variables of the Makefile.
OTHER_ENVIRONMENT = {"CONFIG_PATH", "ENV_FILE", "DEBUG", "TEST_WEIGHTS", "STOP_AT"}
# Targets that make a run, or go on with the one that RUN= names.
MAKING = {"eval", "batch", "dry-run"}
# Targets that look at a run that is there: without RUN= they mean the last one.
LOOKING = {"status", "logs", "cancel", "resume", "results", "export", "explain"}
# Those of them that take several runs at once.
SEVERAL = {"status", "cancel"}


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


def check_names(given: list[str], environ: Mapping[str, str] = os.environ) -> None:
    """Refuse a variable on Make's command line, or an EVALMAKE_NAME in the environment, that does not exist.

    Raises BadInput with the nearest name.
    """
    known = [entry.name for entry in variables()]
    for name in given:
        if name not in known:
            raise BadInput(f"unknown variable {name}{nearest(name.upper(), known)}; `make help` lists them; nothing was done")
    for name in environ:
        short = name.removeprefix(PREFIX)
        if name.startswith(PREFIX) and short not in known and short not in OTHER_ENVIRONMENT:
            near = nearest(short.upper(), [*known, *OTHER_ENVIRONMENT]).replace("mean ", f"mean {PREFIX}")
            raise BadInput(f"unknown variable {name} in the environment{near}; unset it; nothing was done")


def run_ids(run: str | None, config: str, profile: str, goals: list[str], runs: Path = run_folder.RUNS) -> tuple[list[str], bool]:
    """The ids of the runs that this command is about, and whether it is a new one. It is one run, but for the targets in SEVERAL.

    A file of a run as the goal names its run; else RUN does; else it is a new run; a target that only looks at a run means the last one.
    Raises BadInput when RUN is empty or names none or several, and when the goals and RUN name different runs or ask for opposites.
    """
    if "dry-run" in goals and len(MAKING & set(goals)) > 1:
        raise BadInput("dry-run contacts nothing, and eval and batch do: one of them at a time")
    named = dict.fromkeys(match[1] for goal in goals if (match := re.match(r"(?:\./)?runs/([^/]+)/", goal)))
    for name in named:
        if not run_folder.ID_FORM.fullmatch(name) or not (runs / name).is_dir():
            raise BadInput(f"runs/{name}: no such run; `make runs` lists them")
    if run is not None:
        if not run.strip():
            raise BadInput("RUN is empty; name a run (RUN=latest is the last), or leave RUN out")
        several = bool(goals) and set(goals) <= SEVERAL
        named |= dict.fromkeys(run_folder.resolve(one, runs) for one in (run.split() if several else [run]))
        if several:
            return list(named), False
    if len(named) > 1:
        raise BadInput(f"one run at a time, not {', '.join(sorted(named))}")
    if named:
        return list(named), False
    if set(goals) & LOOKING and not set(goals) & MAKING:
        ids = run_folder.all_ids(runs)
        return [ids[-1] if ids else "none-yet"], False
    return [run_folder.new_id(config or profile or "local")], True


def page(environ: Mapping[str, str] = os.environ) -> str:
    """The text of `make help`: what a person can type, and what each variable is now (from EVALMAKE_NAME, which Make exports)."""
    lines = ["evalmake evaluates language models: config in, scores out, every step a file in runs/ID/.", ""]
    lines += ["  make eval                                         a small real model on this machine, in about a minute"]
    lines += ['  make eval PROFILE=CLUSTER TASKS="adlr_mmlu hellaswag"     your model on a cluster of env.toml', "", "Targets"]
    lines += [f"  {entry.name:<13} {entry.sentence}" for entry in targets()]
    lines += ["", f"Variables: make TARGET NAME=value, or {PREFIX}NAME in the environment"]
    for entry in variables():
        lines.append(f"  {entry.name:<13} {entry.sentence} [{_now(entry.name, environ)}]")
    return "\n".join(lines)


def _now(name: str, environ: Mapping[str, str]) -> str:
    value = environ.get(PREFIX + name)
    if value is None and name == "CONFIG":
        value = "default" if environ.get(f"{PREFIX}PROFILE") else "local"
    return "not given" if value is None else f"now {value!r}"
