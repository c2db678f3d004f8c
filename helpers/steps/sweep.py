"""Several models, one evaluation each: a sweep. Its runs are runs like any others, each made and gone on with by `make`.

    runs/sweeps/ID/sweep.json      what was asked, and the run of each model; written before the first run is made
    runs/sweeps/ID/results.json    the scores of all models; it is there when every task has some, and the sweep is over then

The same command finds its sweep by what was asked: one that is not over goes on, with the same runs, so with the versions that were
recorded for them, and tasks that failed are run again; after one that is over a new one begins.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.common import console, files, run_folder
from helpers.common.console import Cell
from helpers.common.errors import BadInput, EvalmakeError, Interrupted, StepFailed, TaskFailed, Unreachable
from helpers.common.files import shown
from helpers.config import model_references
from helpers.config import tasks as task_rules
from helpers.credentials.wandb_server import WANDB
from helpers.executors import scores as results
from helpers.exports import exports_file
from helpers.steps import compile as compile_step
from helpers.steps import export, request, show, status, variables

MADE_BY = "sweep.py"
SWEEPS = run_folder.RUNS / "sweeps"
# How often a cluster is asked for the jobs of a sweep: squeue and sacct once for all of them.
ASK_FIRST, ASK_MOST = 3.0, 30.0
ERRORS: dict[int, type[EvalmakeError]] = {2: BadInput, 3: Unreachable, 4: TaskFailed, 130: Interrupted}
STOP_SECONDS = 60  # for Make to stop what it started


@dataclass(frozen=True)
class One:
    """A model of a sweep, and its run."""

    model: str
    run: Path

    def path(self, name: str) -> Path:
        """A file of its run."""
        return self.run / name


def cap(text: str | None) -> int | None:
    """JOBS as a number; None: no cap. Raises BadInput for anything but a number of 1 or more."""
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise BadInput(f"JOBS={text}: a number of jobs, 1 or more, was expected")
    return int(text)


def sweep(given: dict[str, Any], models: Sequence[str], jobs: int | None, make: Sequence[str]) -> None:
    """Evaluate each model, and print one table on stdout.

    `given`: what is asked of each run (see request.asked); `jobs`: the most Slurm jobs at a time; `make`: the command, with variables that
    every run takes. Raises BadInput before anything is made or contacted for what no run could take; for a model that there is not, before
    anything is submitted. What could not be asked, or was interrupted, is gone on with by the same command. Raises TaskFailed when some
    task has no scores, StepFailed for a model without any.
    """
    asked = _checked(given, models, jobs)
    folder = _find(asked) or _begin(asked)
    with _only_one(folder):
        ones = [One(entry["model"], run_folder.RUNS / entry["run"]) for entry in files.read_json(folder / "sweep.json", "sweep")["models"]]
        for number, one in enumerate(ones):
            _ready(one, given, number == 0, make)
            _open_again(one, make)
        config, _, _ = files.read_yaml(ones[0].path("config.yaml"), "config")
        if config["execution"]["type"] == "slurm":
            failures = _side_by_side(ones, len(config["evaluation"]["tasks"]), jobs, make)
        else:
            failures = _one_after_another(ones, make)
        _finish(folder, ones, failures)


def _checked(given: dict[str, Any], models: Sequence[str], jobs: int | None) -> dict[str, Any]:
    """What the sweep is found by again, after every model's config was compiled. Raises BadInput."""
    if "model" in given:
        raise BadInput("MODEL is for one model; leave it out, MODELS names them all")
    if not models:
        raise BadInput('MODELS is missing: name models by artifact, MODELS="sft:v1 sft:v2 rl:latest" (`make models` lists them)')
    if twice := [one for one in dict.fromkeys(models) if list(models).count(one) > 1]:
        raise BadInput(f"MODELS: {', '.join(twice)} stands there twice; name each model once")
    for model in models:
        one = request.build("eval", {**given, "model": model})
        config = compile_step.compiled_for(one).config
        if "model" not in model_references.references(config):
            place = config["deployment"].get("checkpoint_path") or config["deployment"].get("hf_model_handle") or "an endpoint"
            raise BadInput(
                f"MODELS: this config evaluates {place}, whatever run.model is; it takes a model by artifact with "
                "`deployment.checkpoint_path: ${art:model,path}`"
            )
    tasks, kind = len(config["evaluation"]["tasks"]), config["execution"]["type"]
    if jobs and kind != "slurm":
        console.notice(f"JOBS has no effect: on execution.type {kind} the models are evaluated one after another")
    elif jobs and jobs < tasks:
        raise BadInput(f"JOBS={jobs}: each model has {tasks} tasks, each a job of its own; give JOBS={tasks} or more, or fewer TASKS")
    kept = ("mode", "config", "profile", "tasks", "overrides", "quick", "inputs")
    return {"models": list(models), **{name: one[name] for name in kept}}


# ---- The sweep's own folder ----------------------------------------------------------------------------------------------------------


def _find(asked: Mapping[str, Any]) -> Path | None:
    """The newest sweep of which the very same was asked and that is not over."""
    for name in reversed(run_folder.all_ids(SWEEPS)):
        folder = SWEEPS / name
        if (folder / "results.json").exists() or not (folder / "sweep.json").exists():
            continue
        if files.read_json(folder / "sweep.json", "sweep")["asked"] == asked:
            console.info(f"going on with {shown(folder)}")
            return folder
    return None


def _begin(asked: dict[str, Any]) -> Path:
    folder = SWEEPS / run_folder.new_id("sweep")
    runs = [{"model": model, "run": run_folder.new_id(asked["config"])} for model in asked["models"]]
    data = {"made_by": MADE_BY, "made_at": run_folder.now(), "asked": asked, "models": runs}
    files.write_json(folder / "sweep.json", data, "sweep")
    console.info(f"{len(runs)} models, a run each: {shown(folder)}")
    return folder


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"another terminal is at work on {shown(folder)}; wait for it, or change what is asked") from None
        except OSError:
            console.notice(f"{shown(folder)} lies on a filesystem without locks: run a sweep from one terminal at a time")
        yield


# ---- Its runs ------------------------------------------------------------------------------------------------------------------------


def _ready(one: One, given: dict[str, Any], is_first: bool, make: Sequence[str]) -> None:
    """Make the run up to launcher.yaml: its model is looked up and recorded, its images are there. Nothing is submitted."""
    if not one.run.is_dir():
        # What is imported anew for the first run is new for the others.
        own = {key: value for key, value in given.items() if key != "force_squash" or is_first}
        request.create(str(one.path("request.json")), "eval", {**own, "model": one.model})
    if not one.path("launcher.yaml").exists():
        console.info(f"preparing {one.model}")
        code, said = _make(make, [str(one.path("launcher.yaml").relative_to(run_folder.ROOT))], quiet=True)
        if code:
            raise ERRORS.get(_step_code(one.run), StepFailed)(f"{one.model}: {_error_in(said)}")
    model = files.read_json(one.path("model.json"), "model")["models"]["model"]
    console.done(f"{one.model}: {model['name']} {model['version']}, {shown(one.run)}")


def _open_again(one: One, make: Sequence[str]) -> None:
    """Let what failed in an earlier call be run again: `make resume` takes the run's results away, so that they are waited for anew."""
    if one.path("results.json").exists() and _entry(one)["failed"]:
        code, _ = _make(make, ["resume", f"RUN={one.run.name}"])
        if code and _step_code(one.run) in (3, 130):
            raise ERRORS[_step_code(one.run)](f"{one.model}: {_last_error(one.run)}; the same command goes on")


def _one_after_another(ones: Sequence[One], make: Sequence[str]) -> dict[str, str]:
    """Each model's evaluation with `make eval`; what could not be evaluated, with the reason. Raises what would stop all."""
    failures = {}
    for number, one in enumerate(ones, 1):
        if one.path("results.json").exists():
            continue
        console.say(f"\n{one.model} ({number} of {len(ones)})")
        _make(make, ["eval", f"RUN={one.run.name}"])
        if not one.path("results.json").exists():
            code = _step_code(one.run)
            why = _last_error(one.run)
            if code in (3, 130):
                raise ERRORS[code](f"{one.model}: {why}; the same command goes on")
            failures[one.model] = why
    return failures


def _side_by_side(ones: Sequence[One], tasks: int, jobs: int | None, make: Sequence[str]) -> dict[str, str]:
    """Each model's jobs queued as there is room under the cap, and its scores brought home when they have ended; what could not be."""
    failures: dict[str, str] = {}
    waiting = [one for one in ones if not one.path("results.json").exists()]
    seconds, told, lost = ASK_FIRST, "", False
    while waiting:
        active = [one for one in waiting if one.path("submission.json").exists()]
        submissions = [files.read_json(one.path("submission.json"), "submission") for one in active]
        found, unreachable = status.ask_all(submissions)
        if unreachable and not lost:
            console.notice(f"{unreachable[0]}; asking again until it answers (Ctrl-C: the jobs go on, and so does the same command)")
        lost = bool(unreachable)
        running = 0
        for one, seen in zip(active, found, strict=True):
            if any(job["state"] == "UNREACHABLE" for job in seen["jobs"]):
                running += tasks
                continue
            files.write_json(one.path("status.json"), seen, "status")
            running += sum(job["state"] not in status.ENDED for job in seen["jobs"])
            if status.is_over(seen) and _brought_home(one):
                console.done(f"{one.model}: {sum(job['state'] == 'SUCCEEDED' for job in seen['jobs'])} of {tasks} tasks have scores")
                waiting.remove(one)
        queued = 0
        for one in [one for one in waiting if one not in active]:
            if lost or (jobs and running + tasks > jobs):
                break
            code, said = _make(make, ["batch", f"RUN={one.run.name}"], quiet=True)
            if code and active and _step_code(one.run) == Unreachable.exit_code:
                break  # others are at work there: it is waited for like their ends
            if code and _step_code(one.run) in (3, 130):
                raise ERRORS[_step_code(one.run)](f"{one.model}: {_error_in(said)}; the same command goes on")
            if code:
                failures[one.model] = _error_in(said)
                console.notice(f"{one.model}: {failures[one.model]}")
                waiting.remove(one)
                continue
            console.done(f"{one.model}: {tasks} jobs queued, `make status RUN={one.run.name}`")
            running, queued = running + tasks, queued + 1
        told = _tell(told, ones, waiting, found)
        if waiting and not (queued and running < (jobs or running + 1)):
            time.sleep(seconds)
            seconds = min(ASK_MOST, seconds * 1.3)
    return failures


def _brought_home(one: One) -> bool:
    """Write results.json of a run that has ended; False when its cluster could not be asked for it now."""
    try:
        show.gather(str(one.path("submission.json")), str(one.path("status.json")), str(one.path("results.json")), partial=False)
    except Unreachable as error:
        console.notice(f"{one.model}: {error}; trying again")
        return False
    return True


def _tell(before: str, ones: Sequence[One], waiting: Sequence[One], found: Sequence[Mapping[str, Any]]) -> str:
    """One line on how far the sweep is, when that changed."""
    states = [str(job["state"]) for seen in found for job in seen["jobs"]]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    line = f"{len(ones) - len(waiting)} of {len(ones)} models done" + (f"; jobs: {counts}" if counts else "")
    if line != before:
        console.info(line)
    return line


def _make(make: Sequence[str], goals: list[str], quiet: bool = False) -> tuple[int, str]:
    """Run Make; its exit code, and with `quiet` what it said. What it prints goes to stderr, since stdout is the sweep's table.

    Its environment is a person's: nothing that this Make was told reaches it, neither flags nor variables.
    """
    own = {f"{variables.PREFIX}{entry.name}" for entry in variables.variables()}
    environ = {key: value for key, value in os.environ.items() if key not in own and not re.match(r"MAKE|MFLAGS|GNUMAKEFLAGS", key)}
    out = subprocess.PIPE if quiet else sys.stderr
    with subprocess.Popen(
        [*make, "--no-print-directory", *goals],
        cwd=run_folder.ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=out,
        text=True,
    ) as process:
        try:
            _, said = process.communicate()
        except BaseException as error:
            # Ctrl-C reached Make too, which stops what it started, or detaches; a kill did not.
            if not isinstance(error, KeyboardInterrupt):
                process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            raise
        return process.returncode, said or ""


def _step_code(run: Path) -> int:
    """The exit code of the last step of a run that ended."""
    return int(_last_end(run).get("exit_code", 1))


def _last_error(run: Path) -> str:
    return str(_last_end(run).get("error", "its last step says nothing")) + f" (runs/{run.name})"


def _last_end(run: Path) -> dict[str, Any]:
    log = run / run_folder.EVENTS
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    ends = [event for line in lines if (event := json.loads(line)).get("event") == "end"]
    return ends[-1] if ends else {}


def _error_in(said: str) -> str:
    """The line of an expected error in what Make printed."""
    lines = [line.removeprefix("error: ") for line in said.splitlines() if line.startswith("error: ")]
    return lines[-1] if lines else (said.strip().splitlines() or ["make says nothing"])[-1]


# ---- The table -----------------------------------------------------------------------------------------------------------------------


def _finish(folder: Path, ones: Sequence[One], failures: Mapping[str, str]) -> None:
    """Show the table; with scores for every task of every model the sweep is over, and results.json is written."""
    done = [one for one in ones if one.path("results.json").exists()]
    entries = [_entry(one) for one in done]
    print_table(entries)
    for one in done:
        _export(one)
    if failures:
        told = "; ".join(f"{model}: {why}" for model, why in failures.items())
        raise StepFailed(f"{len(failures)} of {len(ones)} models were not evaluated: {told}; the same command tries them again")
    if failed := [f"{one['model']} {task} (RUN={one['run']})" for one in entries for task in one["failed"]]:
        raise TaskFailed(f"{len(failed)} tasks failed: {', '.join(failed)}; `make logs RUN=…` shows why, the same command runs them again")
    kept = [{key: value for key, value in one.items() if key != "failed"} for one in entries]
    data = {"made_by": MADE_BY, "made_from": _seals(folder, ones), "models": kept}
    files.write_json(folder / "results.json", data, "sweep_results")
    console.say(f"Results: {shown(folder / 'results.json')}")


def _export(one: One) -> None:
    """Where the config wants it, the scores of a run are in W&B, verified, or it is said why not. Given again, it asks nobody."""
    out = str(one.path("exports.json"))
    if exports_file.is_done(out, files.read_json(one.path("results.json"), "results")):
        return
    export.export(str(one.path("submission.json")), out, WANDB, auto=True)
    if one.path("exports.json").exists():
        exports_file.announce(files.read_json(out, "exports"), one.run)


def _seals(folder: Path, ones: Sequence[One]) -> dict[str, str]:
    seals = {"sweep.json": files.read_json(folder / "sweep.json", "sweep")["seal"]}
    for one in ones:
        if one.path("results.json").exists():
            seals[f"runs/{one.run.name}/results.json"] = files.read_json(one.path("results.json"), "results")["seal"]
    return seals


def _entry(one: One) -> dict[str, Any]:
    found = files.read_json(one.path("results.json"), "results")
    labels = task_rules.labels(found["tasks"])
    artifact = found["artifacts"]["model"]
    return {
        "model": one.model,
        "run": one.run.name,
        "name": artifact["name"],
        "version": artifact["version"],
        "scores": [{"label": labels[row["index"]], **row} for row in found["rows"]],
        "failed": [labels[entry["index"]] for entry in found["tasks"] if entry["state"] != "SUCCEEDED"],
    }


def print_table(entries: Sequence[Mapping[str, Any]]) -> None:
    """The models of a sweep as rows, their scores as columns, on stdout.

    Of a benchmark with parts (mmlu and its subjects) only the whole is shown where the harness gives one.
    """
    columns: dict[tuple[str, ...], str] = {}
    cells: list[dict[tuple[str, ...], str]] = []
    for entry in entries:
        row: dict[tuple[str, ...], str] = {}
        for score in _whole(entry["scores"]):
            column = (score["label"], score["part"] or "", score["metric"], score["score"])
            part = f" {score['part']}" if score["part"] and score["part"] != score["label"].rpartition(".")[2] else ""
            metric = score["metric"] if score["score"] == score["metric"] else f"{score['metric']} {score['score']}"
            columns.setdefault(column, f"{score['label']}{part} {metric}")
            row[column] = results.cell(score)
        cells.append(row)
    rows: list[list[str | Cell]] = []
    for entry, row in zip(entries, cells, strict=True):
        named = entry["model"] if entry["model"].endswith(f":{entry['version']}") else f"{entry['model']} ({entry['version']})"
        missing = [row.get(column) or Cell("failed" if column[0] in entry["failed"] else "-", "red") for column in columns]
        rows.append([named, *missing])
    console.print_table(f"{len(entries)} models", ["model", *columns.values()], rows, right=tuple(columns.values()))


def _whole(scores: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    whole = {score["label"] for score in scores if score["part"] == score["label"].rpartition(".")[2]}
    return [score for score in scores if score["label"] not in whole or score["part"] == score["label"].rpartition(".")[2]]
