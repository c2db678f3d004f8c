"""A sweep: several models, one evaluation each. Its runs are ordinary runs, made and continued by `make`.

    runs/sweeps/ID/sweep.json      the request, and the run of each model; written before the first run is made
    runs/sweeps/ID/results.json    the scores of all models; written when every task has scores, which ends the sweep

The same command continues an unfinished sweep: same runs, so the model versions recorded for them, and failed tasks run again. After a
finished sweep it starts a new one.
"""

import contextlib
import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from helpers.common import console, files, run_folder, step
from helpers.common.console import Cell, counted
from helpers.common.errors import BadInput, EvalmakeError, Interrupted, StepFailed, TaskFailed, Unreachable
from helpers.common.files import shown
from helpers.common.step import Exit
from helpers.config import model_references
from helpers.config import tasks as task_rules
from helpers.credentials.wandb_server import WANDB
from helpers.executors import registry, states
from helpers.executors import scores as results
from helpers.exports import exports_file
from helpers.steps import compile as compile_step
from helpers.steps import export, request, status, variables
from helpers.steps import results as results_step

MADE_BY = "sweep.py"
SWEEPS = run_folder.RUNS / "sweeps"
# Seconds between two questions to the cluster, each one squeue and one sacct for all jobs of the sweep.
ASK_FIRST, ASK_MOST = 3.0, 30.0
ERRORS: dict[int, type[EvalmakeError]] = {2: BadInput, 3: Unreachable, 4: TaskFailed, 130: Interrupted}
# Exit codes of steps after which the other models would fail the same way, or the user wants to stop.
STOPPING = (Unreachable.exit_code, Interrupted.exit_code)
STOP_SECONDS = 60  # for Make to stop what it started


class One(NamedTuple):
    """A model of a sweep, and the folder of its run."""

    model: str
    run: Path


def sweep(given: dict[str, Any], models: Sequence[str], jobs: int | None, make: Sequence[str]) -> None:
    """Evaluate each model and print one table on stdout.

    `given`: what each run is asked to do (see request.asked). `jobs`: the most Slurm jobs at a time; None for no limit. `make`: the
    command, with variables for every run.

    Raises BadInput before anything is made or contacted when no run could work, and before anything is submitted when a model does not
    exist; Unreachable and Interrupted, after which the same command continues; TaskFailed when a task has no scores; StepFailed when a
    model could not be evaluated.
    """
    asked = _checked(given, models, jobs)
    folder = _find(asked) or _begin(asked)
    with _only_one(folder):
        ones = [One(entry["model"], run_folder.RUNS / entry["run"]) for entry in files.read_json(folder / "sweep.json", "sweep")["models"]]
        for number, one in enumerate(ones):
            _ready(one, given, number == 0, make)
            _open_again(one, make)
        config, _, _ = files.read_yaml(ones[0].run / "config.yaml", "config")
        if registry.get(config["execution"]["type"]).has_queue:
            failures = _side_by_side(ones, len(config["evaluation"]["tasks"]), jobs, make)
        else:
            failures = _one_after_another(ones, make)
        _finish(folder, ones, failures)


def _checked(given: dict[str, Any], models: Sequence[str], jobs: int | None) -> dict[str, Any]:
    """Compile each model's config, and return what identifies the sweep. Raises BadInput."""
    if "model" in given:
        raise BadInput("MODEL names a single model; leave it out and name all of them in MODELS")
    if not models:
        raise BadInput('MODELS is missing: name models by artifact, MODELS="sft:v1 sft:v2 rl:latest" (`make models` lists them)')
    if twice := [one for one in dict.fromkeys(models) if list(models).count(one) > 1]:
        raise BadInput(f"MODELS: {', '.join(twice)} is given twice; name each model once")
    for model in models:
        one = request.build("eval", {**given, "model": model})
        config = compile_step.compiled_for(one).config
        if "model" not in model_references.references(config):
            place = config["deployment"].get("checkpoint_path") or config["deployment"].get("hf_model_handle") or "an endpoint"
            fix = "to take a model by artifact, set `deployment.checkpoint_path: ${art:model,path}`"
            raise BadInput(f"MODELS: this config evaluates {place} and ignores run.model; {fix}")
    tasks, executor = len(config["evaluation"]["tasks"]), registry.get(config["execution"]["type"])
    if jobs and not executor.has_queue:
        name = executor.description.name
        console.notice(f"JOBS has no effect: with execution.type {name} the models are evaluated one after another")
    elif jobs and jobs < tasks:
        raise BadInput(f"JOBS={jobs}: each model has {tasks} tasks, and each task is a job; give JOBS={tasks} or more, or fewer TASKS")
    kept = ("mode", "config", "profile", "tasks", "overrides", "quick", "inputs")
    return {"models": list(models), **{name: one[name] for name in kept}}


def _find(asked: Mapping[str, Any]) -> Path | None:
    """The newest unfinished sweep that was asked to do exactly this."""
    for name in reversed(run_folder.all_ids(SWEEPS)):
        folder = SWEEPS / name
        is_open = (folder / "sweep.json").exists() and not (folder / "results.json").exists()
        if is_open and files.read_json(folder / "sweep.json", "sweep")["asked"] == asked:
            console.info(f"continuing {shown(folder)}")
            return folder
    return None


def _begin(asked: dict[str, Any]) -> Path:
    folder = SWEEPS / run_folder.new_id("sweep")
    runs = [{"model": model, "run": run_folder.new_id(asked["config"])} for model in asked["models"]]
    data = {"made_by": MADE_BY, "made_at": run_folder.now(), "asked": asked, "models": runs}
    files.write_json(folder / "sweep.json", data, "sweep")
    console.info(f"{counted(len(runs), 'model')}, one run each: {shown(folder)}")
    return folder


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"another terminal is running this sweep ({shown(folder)}); wait for it, or evaluate something else") from None
        except OSError:
            console.notice(f"{shown(folder)} is on a filesystem without locks: run this sweep from one terminal only")
        yield


def _ready(one: One, given: dict[str, Any], is_first: bool, make: Sequence[str]) -> None:
    """Make the run up to launcher.yaml: its model is looked up and recorded, its images are imported. Submits nothing."""
    if not one.run.is_dir():
        # The images that the first run imports again are new for the others too.
        own = {key: value for key, value in given.items() if key != "force_squash" or is_first}
        request.create(str(one.run / "request.json"), "eval", {**own, "model": one.model})
    if not (one.run / "launcher.yaml").exists():
        console.info(f"preparing {one.model}")
        if failed := _make(one, make, [str((one.run / "launcher.yaml").relative_to(run_folder.ROOT))], quiet=True):
            raise ERRORS.get(failed.code, StepFailed)(f"{one.model}: {failed.error}")
    model = files.read_json(one.run / "model.json", "model")["models"]["model"]
    console.done(f"{one.model}: {model['name']} {model['version']}, {shown(one.run)}")


def _open_again(one: One, make: Sequence[str]) -> None:
    """Run tasks again that failed in an earlier call. `make resume` removes the run's results, so that the sweep waits for new ones."""
    if (one.run / "results.json").exists() and _entry(one)["failed"]:
        failed = _make(one, make, ["resume", f"RUN={one.run.name}"])
        if failed and failed.code in STOPPING:
            raise _stopped(one, failed)


def _one_after_another(ones: Sequence[One], make: Sequence[str]) -> dict[str, str]:
    """Evaluate each model with `make eval`. Returns the reason for each model that failed. Raises Unreachable and Interrupted."""
    failures = {}
    for number, one in enumerate(ones, 1):
        if (one.run / "results.json").exists():
            continue
        console.say(f"\n{one.model} ({number} of {len(ones)})")
        failed = _make(one, make, ["eval", f"RUN={one.run.name}"])
        if failed and not (one.run / "results.json").exists():
            if failed.code in STOPPING:
                raise _stopped(one, failed)
            failures[one.model] = f"{failed.error} (runs/{one.run.name})"
    return failures


def _side_by_side(ones: Sequence[One], tasks: int, jobs: int | None, make: Sequence[str]) -> dict[str, str]:
    """Queue each model's jobs as the cap allows, and fetch its scores when they have ended.

    Returns the reason for each model that failed. Raises Unreachable and Interrupted.
    """
    failures: dict[str, str] = {}
    waiting = [one for one in ones if not (one.run / "results.json").exists()]
    seconds, shown_line, lost = ASK_FIRST, "", False
    while waiting:
        active = [one for one in waiting if (one.run / "submission.json").exists()]
        submissions = [files.read_json(one.run / "submission.json", "submission") for one in active]
        found, unreachable = status.ask_all(submissions)
        if unreachable and not lost:
            console.notice(f"{unreachable[0]}; trying again until it answers (after Ctrl-C the jobs continue; the same command resumes)")
        lost = bool(unreachable)
        running = 0
        for one, seen in zip(active, found, strict=True):
            if any(job["state"] == "UNREACHABLE" for job in seen["jobs"]):
                running += tasks
                continue
            files.write_json(one.run / "status.json", seen, "status")
            running += sum(job["state"] not in states.ENDED for job in seen["jobs"])
            if states.is_over(seen["jobs"]) and _collected(one):
                console.done(f"{one.model}: {sum(job['state'] == 'SUCCEEDED' for job in seen['jobs'])} of {tasks} tasks have scores")
                waiting.remove(one)
        queued = 0
        for one in [one for one in waiting if one not in active]:
            if lost or (jobs and running + tasks > jobs):
                break
            failed = _make(one, make, ["batch", f"RUN={one.run.name}"], quiet=True)
            if failed and active and failed.code == Unreachable.exit_code:
                break  # jobs of other models are running there, so wait for the cluster with them
            if failed and failed.code in STOPPING:
                raise _stopped(one, failed)
            if failed:
                failures[one.model] = failed.error
                console.notice(f"{one.model}: {failures[one.model]}")
                waiting.remove(one)
                continue
            console.done(f"{one.model}: {counted(tasks, 'job')} queued (`make status RUN={one.run.name}`)")
            running, queued = running + tasks, queued + 1
        shown_line = _progress(shown_line, ones, waiting, found)
        if waiting and not (queued and running < (jobs or running + 1)):
            time.sleep(seconds)
            seconds = min(ASK_MOST, seconds * 1.3)
    return failures


def _collected(one: One) -> bool:
    """Write results.json of a run that has ended; False when its cluster does not answer now."""
    try:
        results_step.gather(str(one.run / "submission.json"), str(one.run / "status.json"), str(one.run / "results.json"), partial=False)
    except Unreachable as error:
        console.notice(f"{one.model}: {error}; trying again")
        return False
    return True


def _progress(before: str, ones: Sequence[One], waiting: Sequence[One], found: Sequence[Mapping[str, Any]]) -> str:
    """Print one line on how far the sweep is if it differs from the line `before`; returns the line."""
    states = [str(job["state"]) for seen in found for job in seen["jobs"]]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    line = f"{len(ones) - len(waiting)} of {len(ones)} models done" + (f"; jobs: {counts}" if counts else "")
    if line != before:
        console.info(line)
    return line


def _stopped(one: One, failed: Exit) -> EvalmakeError:
    return ERRORS[failed.code](f"{one.model}: {failed.error} (runs/{one.run.name}); the same command continues")


def _make(one: One, make: Sequence[str], goals: list[str], quiet: bool = False) -> Exit | None:
    """Run Make on a run. Returns None when it succeeded, otherwise how its last step ended: Make itself exits 2 for every failure.

    Its output goes to stderr, since stdout is for the sweep's table; with `quiet` it is not shown.
    """
    step.clear(one.run)
    code, said = _run(make, goals, quiet)
    if not code:
        return None
    ended = step.last_exit(one.run)
    if ended and ended.code:
        return ended
    line = (said.strip().splitlines() or [f"make exited with {code}, and its step was killed"])[-1]
    return Exit("make", StepFailed.exit_code, line)


def _run(make: Sequence[str], goals: list[str], quiet: bool) -> tuple[int, str]:
    """Run Make; its exit code, and with `quiet` what it printed. It inherits neither flags nor variables of the Make that started us."""
    own = {f"{variables.PREFIX}{entry.name}" for entry in variables.variables()}
    environ = {key: value for key, value in os.environ.items() if key not in own and not re.match(r"MAKE|MFLAGS|GNUMAKEFLAGS", key)}
    command, nothing, out = [*make, "--no-print-directory", *goals], subprocess.DEVNULL, subprocess.PIPE if quiet else sys.stderr
    with subprocess.Popen(command, cwd=run_folder.ROOT, env=environ, stdin=nothing, stdout=out, stderr=out, text=True) as process:
        try:
            _, said = process.communicate()
        except BaseException as error:
            # Ctrl-C reaches Make too, which stops its jobs or detaches from them; a kill reaches only us.
            if not isinstance(error, KeyboardInterrupt):
                process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            raise
        return process.returncode, said or ""


def _finish(folder: Path, ones: Sequence[One], failures: Mapping[str, str]) -> None:
    """Print the table. When every task of every model has scores, write results.json, which ends the sweep."""
    done = [one for one in ones if (one.run / "results.json").exists()]
    entries = [_entry(one) for one in done]
    print_table(entries)
    for one in done:
        _export(one)
    if failures:
        reasons = "; ".join(f"{model}: {why}" for model, why in failures.items())
        raise StepFailed(f"{len(failures)} of {len(ones)} models could not be evaluated: {reasons}; the same command tries again")
    if failed := [f"{one['model']} {task} (RUN={one['run']})" for one in entries for task in one["failed"]]:
        number = counted(len(failed), "task")
        raise TaskFailed(f"{number} failed: {', '.join(failed)}; `make logs RUN=…` shows why; the same command tries again")
    kept = [{key: value for key, value in one.items() if key != "failed"} for one in entries]
    seals = {f"runs/{one.run.name}/results.json": files.read_json(one.run / "results.json", "results")["seal"] for one in done}
    seals["sweep.json"] = files.read_json(folder / "sweep.json", "sweep")["seal"]
    data = {"made_by": MADE_BY, "made_from": seals, "models": kept}
    files.write_json(folder / "results.json", data, "sweep_results")
    console.say(f"Results: {shown(folder / 'results.json')}")


def _export(one: One) -> None:
    """Export the scores of a run to W&B if its config says so, and report the outcome. A finished export is not repeated."""
    out = str(one.run / "exports.json")
    if exports_file.is_done(out, files.read_json(one.run / "results.json", "results")):
        return
    export.export(str(one.run / "submission.json"), out, WANDB, auto=True)
    if (one.run / "exports.json").exists():
        exports_file.announce(files.read_json(out, "exports"), one.run)


def _entry(one: One) -> dict[str, Any]:
    found = files.read_json(one.run / "results.json", "results")
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
    """Print the models of a sweep as rows and their scores as columns on stdout.

    For a benchmark with parts, such as mmlu with its subjects, only the overall score is shown if the harness gives one.
    """
    columns: dict[tuple[str, ...], str] = {}
    cells: list[dict[tuple[str, ...], str]] = [{} for _ in entries]
    for entry, row in zip(entries, cells, strict=True):
        for score in _whole(entry["scores"]):
            column = (score["label"], score["part"] or "", score["metric"], score["score"])
            part = f" {score['part']}" if score["part"] and score["part"] != score["label"].rpartition(".")[2] else ""
            metric = score["metric"] if score["score"] == score["metric"] else f"{score['metric']} {score['score']}"
            columns.setdefault(column, f"{score['label']}{part} {metric}")
            row[column] = results.cell(score)
    rows: list[list[str | Cell]] = []
    for entry, row in zip(entries, cells, strict=True):
        named = entry["model"] if entry["model"].endswith(f":{entry['version']}") else f"{entry['model']} ({entry['version']})"
        missing = [row.get(column) or Cell("failed" if column[0] in entry["failed"] else "-", "red") for column in columns]
        rows.append([named, *missing])
    console.print_table(counted(len(entries), "model"), ["model", *columns.values()], rows, right=tuple(columns.values()))


def _whole(scores: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    whole = {score["label"] for score in scores if score["part"] == score["label"].rpartition(".")[2]}
    return [score for score in scores if score["label"] not in whole or score["part"] == score["label"].rpartition(".")[2]]
