"""Results to W&B: which runs a submission is there, bringing them there from this machine, and holding them against results.json.

The launcher's own exporter (exporters/wandb.py of 0.2.6) makes another run each time it exports a task, leaves standard errors and sample
counts out, lets equal metric names of two tasks overwrite each other (`multi_task`), and when it fails says so in a log that nobody reads.
So this one writes, under ids that follow from the invocation, and asks W&B afterwards. The names of metrics are the launcher's. On a
cluster the launcher's export job brings the scores there first, under the same ids (helpers/executors/slurm/submission.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.common import console, files, run_folder
from helpers.common.errors import BadInput, EvalmakeError, StepFailed, one_line
from helpers.common.files import ROOT, shown
from helpers.config import tasks
from helpers.credentials import gathering
from helpers.credentials.wandb_server import WANDB, Held, run_id
from helpers.executors import scores as results
from helpers.executors import submissions
from helpers.executors.process import children
from helpers.executors.process import jobs as process_jobs
from helpers.models import wandb_lineage
from helpers.steps import request
from helpers.steps import results as results_step

MADE_BY = "export_results.py"
LOCK = ".exporting"
# One run takes about 2 s; a server that is slow to take its files may take the rest.
START_SECONDS, RUN_SECONDS = 90, 30


@dataclass
class WandbRun:
    """A run as W&B is to hold it: id and name, the tasks in it, its metrics, its config, the folders of the files of its artifact, and the
    models named by artifact that were evaluated (results.json's `artifacts`).
    """

    id: str
    name: str
    tasks: list[str]
    metrics: dict[str, float] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)  # HARNESS.TASK: the task's folder
    artifacts: dict[str, Any] = field(default_factory=dict)

    def against(self, held: Held | None) -> tuple[str, str]:
        """`verified`, `missing` or `wrong` of what the server holds, and in the last case which metrics."""
        if held is None:
            return "missing", "W&B does not hold it"
        off = [name for name, value in self.metrics.items() if not _same(held.summary.get(name), value)]
        if not off:
            return "verified", ""
        first = f"{off[0]} is {json.dumps(held.summary.get(off[0]))} there and {self.metrics[off[0]]} in results.json"
        return "wrong", first + (f" (and {len(off) - 1} more)" if off[1:] else "")

    def lacks_lineage(self, held: Held | None) -> bool:
        """Whether the server holds the run without the models that were evaluated, as a launcher's export job leaves it."""
        return held is not None and held.config.get(wandb_lineage.DECLARED, {}) != self.artifacts


def wandb_runs(submission: dict[str, Any], found: dict[str, Any], settings: dict[str, Any]) -> list[WandbRun]:
    """The runs that W&B is to hold of results.json (`found`): one a task that succeeded, or with `log_mode: multi_task` one of them all.

    `settings` is the config's export.wandb. Raises BadInput when a results.yml is not the one that results.json was made from.
    """
    invocation, labels = submission["invocation_id"], tasks.labels(submission["jobs"])
    together = settings.get("log_mode") == "multi_task"
    done = {entry["index"] for entry in found["tasks"] if entry["state"] == "SUCCEEDED"}
    jobs = [job for job in submission["jobs"] if job["index"] in done]
    rows = {job["index"]: _named(job, found) for job in jobs}
    common = {"invocation_id": invocation, "executor": submission["executor"], "model": found["model"]}
    common |= settings.get("extra_metadata") or {}
    made: list[WandbRun] = []
    for chosen in [jobs] if together and jobs else [[job] for job in jobs]:
        label = labels[chosen[0]["index"]]
        if together:
            one = WandbRun(settings.get("run_id") or run_id(invocation), settings.get("name") or f"eval-{invocation}", [])
            one.config = {"benchmarks": [job["task"] for job in chosen], "harnesses": sorted({job["harness"] for job in chosen})}
        else:
            name = f"{settings['name']}-{label}" if settings.get("name") else f"eval-{invocation}-{label}"
            one = WandbRun(run_id(invocation, Path(chosen[0]["job_dir"]).name), name, [])
            one.config = {"job_id": chosen[0]["job_id"], "harness": chosen[0]["harness"], "benchmark": chosen[0]["task"]}
        one.tasks = [labels[job["index"]] for job in chosen]
        one.metrics = metrics({labels[job["index"]]: rows[job["index"]] for job in chosen})
        one.config |= common
        one.artifacts = found.get("artifacts") or {}
        one.folders = {f"{job['harness']}.{labels[job['index']]}": job["job_dir"] for job in chosen}
        made.append(one)
    return made


def metrics(rows: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """The metrics of some tasks (label: named rows) by the names that the launcher gives them: PART_METRIC, PART_METRIC_SCORE.

    With their standard errors and sample counts as NAME_stderr and NAME_n, where no metric has that name. A name that two scores would
    share gets the task's label before it in both, and where that is not enough its words are joined by `/`.
    """
    scores = [(label, row) for label, found in rows.items() for row in found if row["value"] is not None]
    names = [_launchers_name(row) for _, row in scores]
    whole = [f"{label}/{name}" if names.count(name) > 1 else name for (label, _), name in zip(scores, names, strict=True)]
    found: dict[str, float] = {}
    extra: dict[str, float] = {}
    for (label, row), name in zip(scores, whole, strict=True):
        key = "/".join([label, row["part"], row["metric"], row["score"]]) if whole.count(name) > 1 else name
        found[key] = row["value"]
        extra |= {f"{key}_{what}": row[what] for what in ("stderr", "n") if row[what] is not None}
    return extra | found


def export(submission_path: str, out: str, destination: str, auto: bool) -> None:
    """Bring the results of a submission to W&B, unless they are there already, ask W&B whether they are, and write exports.json.

    With `auto` nothing is raised for a W&B that refuses or does not answer: exports.json says so, and `announce` tells it. Raises BadInput
    for another destination, a run that has not ended, or credentials that are missing or refused; Unreachable when W&B does not answer;
    StepFailed when it does not hold the scores.
    """
    submission = submissions.read(submission_path)
    refuse_other(destination, submission)
    run = Path(submission_path).resolve().parent
    config = files.read_yaml(run / "config.yaml", "config")[0]
    if not (run / "results.json").exists():
        results_step.gather(submission_path, None, str(run / "results.json"), partial=False)
    if auto and not gathering.exports_to_wandb(config):
        found = files.read_json(run / "results.json", "results")
        if not is_done(out, found):
            files.write_json(out, _document(submission, found) | {"state": "nothing", "asked_at": None}, "exports")
        return
    with _alone(run):
        _export_alone(run, submission, config, out, auto)


@contextlib.contextmanager
def _alone(run: Path) -> Iterator[None]:
    """One export of a run at a time: a batch's own, somebody's at a terminal. The second waits, and then finds it done."""
    with (run / LOCK).open("w") as lock:
        with contextlib.suppress(OSError):  # a filesystem without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _export_alone(run: Path, submission: dict[str, Any], config: dict[str, Any], out: str, auto: bool) -> None:
    found = files.read_json(run / "results.json", "results")
    settings = dict((config.get("export") or {}).get(WANDB) or {})
    if auto and is_done(out, found):
        return
    document = _document(submission, found)
    failure: EvalmakeError | None = None
    try:
        _export(run, config, wandb_runs(submission, found, settings), document, _unfinished(out), _lineage(run, found))
    except EvalmakeError as error:
        failure, document["state"], document["reason"] = error, "failed", one_line(error)
    files.write_json(out, document, "exports")
    if failure and not auto:
        raise failure
    if not auto:
        announce(document, run)
        if document["state"] == "failed":
            raise StepFailed(f"{document['reason']}; {_again(run)}")


def is_done(out: str, found: dict[str, Any]) -> bool:
    """Whether exports.json is there, says of these very results that they were exported, and need not be looked at again."""
    if out == "-" or not Path(out).exists():
        return False
    before = files.read_json(out, "exports")
    return bool(before["results"] == found["seal"] and before["state"] != "failed" and not any(one["reason"] for one in before["runs"]))


def announce(document: dict[str, Any], run: Path | None) -> None:
    """Say on stderr what became of an export: where its runs are, or why not and what to do."""
    where = f"{document['entity']}/{document['project']}"
    if document["state"] == "verified":
        console.done(f"W&B holds the scores: {len(document['runs'])} run{'s' if document['runs'][1:] else ''} in {where}, verified")
    elif document["state"] == "failed":
        console.say(one_line(f"✗ The export to W&B failed: {document['reason']}; the scores are safe in results.json, {_again(run)}"))
    elif document["reason"]:
        console.notice(f"W&B: {document['reason']}")
    for one in document["runs"]:
        if one["state"] in ("missing", "wrong") and one["reason"]:
            console.say(one_line(f"  ✗ {', '.join(one['tasks'])}: {one['reason']}"))
        elif one["url"]:
            console.say(f"  {', '.join(one['tasks'])}: {one['url']}")
            if one["reason"]:
                console.notice(f"W&B: {', '.join(one['tasks'])}: the scores are there, and this went wrong: {one['reason']}")


def refuse_other(destination: str, submission: dict[str, Any]) -> None:
    """Raise BadInput for a destination that is not exported to from here: the launcher's own command does it, on the same run."""
    if destination != WANDB:
        raise BadInput(
            f"DEST={destination}: wandb is what is exported to from here; the launcher's own command knows the same run: "
            f"`.venv/bin/nemo-evaluator-launcher export {submission['invocation_id']} --dest {destination}`"
        )


def _export(
    run: Path,
    config: dict[str, Any],
    wanted: list[WandbRun],
    document: dict[str, Any],
    unfinished: set[str],
    lineage: dict[str, Any] | None,
) -> None:
    """Write what W&B lacks, and fill `document` with what it then holds. Raises an EvalmakeError when that could not be done.

    `unfinished`: the runs, by id, that are written again whatever W&B holds.
    """
    found = gathering.gather(config, request.env_folder(run / "config.yaml"), os.environ, export=True)
    document |= {"mode": found.mode, "entity": found.value(gathering.ENTITY), "project": found.value(gathering.PROJECT)}
    document["server"] = found.document({})["wandb"]["server"]
    entries = {
        one.id: {"id": one.id, "name": one.name, "url": None, "tasks": one.tasks, "metrics": len(one.metrics)}
        | {"state": "missing", "reason": ""}
        for one in wanted
    }
    document["runs"] = list(entries.values())
    if found.mode == "disabled" or not wanted:
        why = "WANDB_MODE=disabled: nothing is exported" if found.mode == "disabled" else "no task has results to export"
        document |= {"state": "nothing", "reason": why, "runs": []}
        return
    found.require()
    server = found.wandb_server()
    entity, project = document["entity"], document["project"]
    held: dict[str, Held] = server.held(entity, project, list(entries)) if server else {}
    missing = [
        one
        for one in wanted
        if one.id in unfinished or one.against(held.get(one.id))[0] != "verified" or one.lacks_lineage(held.get(one.id))
    ]
    settings = dict((config.get("export") or {}).get(WANDB) or {})
    said = _write(run, found, {"settings": settings, "lineage": lineage}, missing) if missing else {}
    if server and missing:
        held |= server.held(entity, project, [one.id for one in missing])
    for one in wanted:
        entry = entries[one.id]
        if found.mode == "offline":
            entry |= {"state": "offline", "reason": ""}
        elif server:
            entry["url"] = server.run_url(entity, project, one.id)
            entry["state"], entry["reason"] = one.against(held.get(one.id))
            if entry["state"] == "verified" and one.lacks_lineage(held.get(one.id)):
                entry["reason"] = "the model that was evaluated is not recorded there"
        else:  # an identity token, with which wandb's own code logs in
            entry |= {"state": "unverified", "reason": "", "url": said.get(one.id, {}).get("url")}
        if problem := said.get(one.id, {}).get("error"):
            entry |= {"reason": problem} | ({} if entry["state"] in ("verified", "wrong") else {"state": "missing"})
    _conclude(run, document)


def _conclude(run: Path, document: dict[str, Any]) -> None:
    """What the states of the runs amount to; what was written on the way to a server that has it all is removed."""
    off = [one for one in document["runs"] if one["state"] in ("missing", "wrong")]
    if off:
        first = f"{', '.join(off[0]['tasks'])}: {off[0]['reason']}"
        document |= {"state": "failed", "reason": f"{len(off)} of {len(document['runs'])} W&B runs are not as results.json has it: {first}"}
        return
    document["state"] = document["runs"][0]["state"]
    if document["state"] == "offline":
        document["reason"] = (
            f"offline: the runs lie in {shown(run / WANDB)}; {_again(run, 'brings them to the server when it can be reached')}"
        )
    elif document["state"] == "unverified":
        document["reason"] = "exported with an identity token, and not verified"
    else:
        shutil.rmtree(run / WANDB, ignore_errors=True)


def _write(run: Path, found: gathering.Credentials, given: dict[str, Any], wanted: list[WandbRun]) -> dict[str, dict[str, str]]:
    """Have wandb's SDK write the runs, in a process of its own; what it says of each run by id: `url` or `error`.

    Raises StepFailed when it takes too long (the SDK tries again for hours when a server goes away) or ends otherwise.
    """
    if found.mode == "offline":  # a copy is no update of the one before
        for one in wanted:
            for old in (run / WANDB).glob(f"offline-run-*-{one.id}"):
                shutil.rmtree(old, ignore_errors=True)
    # What would make the SDK write to another run, as inside of a process that wandb watches.
    environ = {name: value for name, value in os.environ.items() if name not in ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SERVICE")}
    found.apply(environ)
    environ |= {"WANDB_DIR": str(run), "WANDB_DATA_DIR": str(run / WANDB / "data"), "WANDB_CACHE_DIR": str(run / WANDB / "cache")}
    mark = f"export-{run.name}"
    environ |= {"PYTHONPATH": str(ROOT), process_jobs.JOB_MARK: mark}
    plan = {
        "entity": found.value(gathering.ENTITY),
        "project": found.value(gathering.PROJECT),
        "mode": found.mode,
        **given,
        "runs": [vars(one) for one in wanted],
    }
    files.make_folder(run / WANDB)
    log = run / WANDB / "export.log"
    timeout = START_SECONDS + RUN_SECONDS * len(wanted)
    console.info(f"Exporting {len(wanted)} run{'s' if wanted[1:] else ''} to W&B {plan['entity']}/{plan['project']}")
    with (
        log.open("ab") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "helpers.exports.wandb_writer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=run,
            env=environ,
            start_new_session=True,
        ) as process,
    ):
        try:
            answer, _ = process.communicate(json.dumps(plan).encode(), timeout=timeout)
        except subprocess.TimeoutExpired:
            raise StepFailed(f"W&B did not take the runs within {timeout} s; see {shown(log)}") from None
        finally:
            children.end_group(process, mark)  # with the service that wandb started
    said = {line["id"]: line for line in map(json.loads, answer.splitlines())}
    if process.returncode or len(said) != len(wanted):
        raise StepFailed(f"wandb ended with code {process.returncode} after {len(said)} of {len(wanted)} runs; see {shown(log)}")
    return said


def _unfinished(out: str) -> set[str]:
    """The ids of the W&B runs of exports.json, where it is there, with which something went wrong though their scores are in W&B."""
    if out == "-" or not Path(out).exists():
        return set()
    return {one["id"] for one in files.read_json(out, "exports")["runs"] if one["reason"]}


def _lineage(run: Path, found: dict[str, Any]) -> dict[str, Any] | None:
    """What a W&B run declares of the models that were evaluated; None where none was named by artifact."""
    path = run / "model.json"
    model = files.read_json(path, "model") if path.exists() else {"models": {}}
    return {"model": model, "results": found} if model["models"] else None


def _document(submission: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    return {
        "made_by": MADE_BY,
        "made_from": {"submission.json": submission["seal"]},
        "results": found["seal"],
        "asked_at": run_folder.now(),
        "destination": WANDB,
        "mode": "online",
        "server": None,
        "entity": None,
        "project": None,
        "state": "failed",
        "reason": "",
        "runs": [],
    }


def _again(run: Path | None, does: str = "does it again from this machine") -> str:
    return f"`make export{f' RUN={run.name}' if run else ''}` {does}"


def _named(job: dict[str, Any], found: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a task with the names of their parts, from its results.yml; the values are those of results.json."""
    path = Path(job["job_dir"]) / "artifacts" / "results.yml"
    named = results.named_rows(results.load(path))
    mine = [row for row in found["rows"] if row["index"] == job["index"]]
    keys = ("metric", "score", "value", "stderr", "n")
    if [[row[key] for key in keys] for row in named] != [[row[key] for key in keys] for row in mine]:
        raise BadInput(f"{shown(path)} is not what results.json was made from; `make results` makes it again")
    return named


def _launchers_name(row: dict[str, Any]) -> str:
    words = [row["part"], row["metric"], *([row["score"]] if row["score"] != row["metric"] else [])]
    return "_".join(words)


def _same(there: Any, here: float) -> bool:
    return isinstance(there, (int, float)) and not isinstance(there, bool) and math.isclose(there, here, rel_tol=1e-9, abs_tol=1e-12)
