"""Exporting results to W&B from this machine: write the runs that W&B lacks, then ask W&B whether it holds them."""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

from helpers.common import console, files, processes
from helpers.common.errors import EvalmakeError, StepFailed, one_line
from helpers.common.files import ROOT, shown
from helpers.credentials import gathering, wanted_variables
from helpers.credentials.wandb_server import WANDB, Held
from helpers.exports import exports_file, wandb_runs
from helpers.exports.wandb_runs import WandbRun

LOCK = ".exporting"
# Seconds: a run takes about 2, and a server that is slow to take its files may use the rest.
START_SECONDS, RUN_SECONDS = 90, 30


def export(
    run: Path, submission: dict[str, Any], config: dict[str, Any], env_dir: Path, *, reads_local_files: bool, out: str, auto: bool
) -> None:
    """Export the results of a run folder to W&B, unless W&B has them, and write exports.json (`out`).

    `env_dir` and `reads_local_files` are for gathering.gather. A second export of the same run waits for the first, and then has nothing to
    do. With `auto` nothing is raised when W&B refuses or does not answer: exports.json says so. Otherwise raises BadInput for missing or
    refused credentials, Unreachable when W&B does not answer, StepFailed when it does not hold the scores in the end.
    """
    with (run / LOCK).open("w") as lock:  # a batch exports when its tasks end, and somebody may run `make export` meanwhile
        with contextlib.suppress(OSError):  # a filesystem without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        results = files.read_json(run / "results.json", "results")
        if auto and exports_file.is_done(out, results):
            return
        document = exports_file.document(submission, results)
        failure: EvalmakeError | None = None
        try:
            settings = dict((config.get("export") or {}).get(WANDB) or {})
            wanted = wandb_runs.expected(submission, results, settings)
            found = gathering.gather(config, env_dir, os.environ, reads_local_files=reads_local_files, export=True)
            _export(run, found, {"settings": settings, "lineage": _lineage(run, results)}, wanted, document, exports_file.unfinished(out))
        except EvalmakeError as error:
            failure, document["state"], document["reason"] = error, "failed", one_line(error)
        files.write_json(out, document, "exports")
        if auto:
            return
        if failure:
            raise failure
        exports_file.announce(document, run)
        if document["state"] == "failed":
            raise StepFailed(f"{document['reason']}; try again with {exports_file.again(run)}")


def _export(
    run: Path, found: gathering.Credentials, given: dict[str, Any], wanted: list[WandbRun], document: dict[str, Any], unfinished: set[str]
) -> None:
    """Write what W&B lacks, and record in `document` what W&B holds then. Raises an EvalmakeError when that is not possible.

    `given` goes to the writer: settings and lineage. `unfinished`: the ids of runs that are written even if W&B holds their scores.
    """
    document |= {"mode": found.mode, "entity": found.value(wanted_variables.ENTITY), "project": found.value(wanted_variables.PROJECT)}
    document["server"] = found.document({})["wandb"]["server"]
    if found.mode == "disabled" or not wanted:
        why = "WANDB_MODE=disabled: nothing is exported" if found.mode == "disabled" else "no task has results to export"
        document |= {"state": "nothing", "reason": why}
        return
    document["runs"] = [
        {"id": one.id, "name": one.name, "url": None, "tasks": one.tasks, "metrics": len(one.metrics), "state": "missing", "reason": ""}
        for one in wanted
    ]
    entries = {entry["id"]: entry for entry in document["runs"]}
    found.require()
    server = found.wandb_server()
    entity, project = document["entity"], document["project"]
    held: dict[str, Held] = server.held(entity, project, list(entries)) if server else {}
    missing = [one for one in wanted if one.id in unfinished or not one.is_complete(held.get(one.id))]
    answers = _write(run, found, given, missing) if missing else {}
    if server and missing:
        held |= server.held(entity, project, [one.id for one in missing])
    for one in wanted:
        entry = entries[one.id]
        if found.mode == "offline":
            entry |= {"state": "offline", "reason": ""}
        elif server:
            entry["url"] = server.run_url(entity, project, one.id)
            entry["state"], entry["reason"] = one.compare(held.get(one.id))
            if entry["state"] == "verified" and one.lacks_lineage(held.get(one.id)):
                entry["reason"] = "the model that was evaluated is not recorded there"
        else:  # with an identity token only wandb's own code can log in
            entry |= {"state": "unverified", "reason": "", "url": answers.get(one.id, {}).get("url")}
        if problem := answers.get(one.id, {}).get("error"):
            entry |= {"reason": problem} | ({} if entry["state"] in ("verified", "wrong") else {"state": "missing"})
    _conclude(run, document)


def _conclude(run: Path, document: dict[str, Any]) -> None:
    """Set the state of the export from those of its runs; when the server has them all, delete what was written here for it."""
    off = [one for one in document["runs"] if one["state"] in ("missing", "wrong")]
    if off:
        first = f"{', '.join(off[0]['tasks'])}: {off[0]['reason']}"
        document |= {"state": "failed", "reason": f"{len(off)} of {len(document['runs'])} W&B runs differ from results.json: {first}"}
        return
    document["state"] = document["runs"][0]["state"]
    if document["state"] == "offline":
        where = shown(run / WANDB)
        document["reason"] = f"offline: the runs are in {where}; {exports_file.again(run)} sends them to the server when it is reachable"
    elif document["state"] == "unverified":
        document["reason"] = "exported with an identity token, and not verified"
    else:
        shutil.rmtree(run / WANDB, ignore_errors=True)


def _write(run: Path, found: gathering.Credentials, given: dict[str, Any], wanted: list[WandbRun]) -> dict[str, dict[str, str]]:
    """Write the runs with wandb's SDK in a process of its own. Returns the `url` or the `error` of each run, by id.

    Raises StepFailed when it takes too long (the SDK retries for hours when a server disappears) or fails as a whole.
    """
    if found.mode == "offline":  # a second offline copy would not replace the first
        for one in wanted:
            for old in (run / WANDB).glob(f"offline-run-*-{one.id}"):
                shutil.rmtree(old, ignore_errors=True)
    # These would make the SDK write to another run, as they do in a process that wandb watches.
    environ = {name: value for name, value in os.environ.items() if name not in ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SERVICE")}
    found.apply(environ)
    environ |= {"WANDB_DIR": str(run), "WANDB_DATA_DIR": str(run / WANDB / "data"), "WANDB_CACHE_DIR": str(run / WANDB / "cache")}
    mark = f"export-{run}"  # with the folder: other checkouts may export a run of the same name
    environ |= {"PYTHONPATH": str(ROOT), processes.JOB_MARK: mark}
    entity, project = found.value(wanted_variables.ENTITY), found.value(wanted_variables.PROJECT)
    plan = {"entity": entity, "project": project, "mode": found.mode, **given, "runs": [vars(one) for one in wanted]}
    files.make_folder(run / WANDB)
    log = run / WANDB / "export.log"
    timeout = START_SECONDS + RUN_SECONDS * len(wanted)
    console.info(f"Exporting {len(wanted)} run{'s' if wanted[1:] else ''} to W&B {entity}/{project}")
    command = [sys.executable, "-m", "helpers.exports.wandb_writer"]
    with (
        log.open("ab") as errors,
        subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=errors, cwd=run, env=environ, start_new_session=True) as process,
    ):
        try:
            output, _ = process.communicate(json.dumps(plan).encode(), timeout=timeout)
        except subprocess.TimeoutExpired:
            raise StepFailed(f"W&B did not take the runs within {timeout} s; see {shown(log)}") from None
        finally:
            processes.end_group(process, mark)  # with the service that wandb started
    answers = {line["id"]: line for line in map(json.loads, output.splitlines())}
    if process.returncode or len(answers) != len(wanted):
        raise StepFailed(f"wandb ended with code {process.returncode} after {len(answers)} of {len(wanted)} runs; see {shown(log)}")
    return answers


def _lineage(run: Path, results: dict[str, Any]) -> dict[str, Any] | None:
    """What a W&B run declares about the evaluated models; None when none was named by artifact."""
    path = run / "model.json"
    model = files.read_json(path, "model") if path.exists() else {"models": {}}
    return {"model": model, "results": results} if model["models"] else None
