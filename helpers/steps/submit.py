"""From config.yaml to launcher.yaml to submission.json: what the launcher is handed, and submitting it exactly once."""

from __future__ import annotations

import errno
import fcntl
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.cluster import connection
from helpers.common import console, files, run_folder, stopping_points, yaml_files
from helpers.common.errors import BadInput, StepFailed, Unreachable
from helpers.common.files import shown
from helpers.config import catalogue
from helpers.credentials import auto_export, gathering, wandb_server
from helpers.executors import capabilities
from helpers.executors.process import jobs as process_jobs
from helpers.executors.slurm import job_values, submission
from helpers.images import references
from helpers.launcher import api, launcher_yaml
from helpers.steps import lineage, request, squash_images
from helpers.steps import plan as planning

MADE_BY = "submit_eval.py"
DOCKER_TIMEOUT = 20  # seconds; a daemon that answers does so in well under one


def prepare(config_path: str, model_path: str | None, out: str) -> None:
    """Write launcher.yaml: the compiled config without its run section, with the run's own output folder, ready for the launcher.

    `model_path`: model.json, which says what each `${art:…}` is; None for a config that has none. Raises BadInput for an execution.type
    that this project cannot run, and for a `${art:…}` that model.json does not have.
    """
    config, seal, _ = files.read_yaml(config_path, "config")
    made_from, models = {"config.yaml": seal}, {}
    if model_path:
        model = files.read_json(model_path, "model")
        made_from["model.json"], models = model["seal"], model["models"]
        if model.get("made_from", {}).get("config.yaml", seal) != seal:
            raise BadInput(f"{shown(model_path)} was not made from {shown(config_path)}; delete it and the same command makes it again")
    if out != "-" and Path(out).exists() and files.read_yaml(out, "launcher")[2] == made_from:
        return
    run = run_folder.run_of(config_path)
    paths, wandb = squash_images.paths_of(config_path), gathering.recorded(config_path)
    data = launcher_yaml.make(config, run, models=models, paths=paths, wandb=wandb)
    why = "the project was moved, the W&B project of the environment is another, or evalmake changed since"
    lineage.refuse_other(out, files.yaml_seal(data, made_from), why)
    files.write_yaml(out, data, "launcher", MADE_BY, made_from)


def submit(config_path: str, launcher_path: str, out: str, keep_partial: bool = False) -> None:
    """Submit launcher.yaml, unless submission.json is there, and write submission.json. A submission that was made before is found again.

    `keep_partial`: on Slurm, when a task is refused, the jobs of the others stay. Raises BadInput when something is missing,
    StepFailed when the launcher or Slurm refuses, Unreachable when Docker or the cluster does not answer.
    """
    run = run_folder.run_of(out)
    with only_one(run):
        if out != "-" and Path(out).exists():
            files.read_json(out, "submission")
            console.info(f"{shown(out)} is there: nothing is submitted again")
            return
        if run and (run / "request.json").exists() and files.read_json(run / "request.json", "request")["mode"] == "dry-run":
            raise BadInput(f"{run.name} is a dry run, which is never submitted; `make eval` with the same variables starts a run")
        config, config_seal, _ = files.read_yaml(config_path, "config")
        data, seal, made_from = files.read_yaml(launcher_path, "launcher")
        if made_from and made_from.get("config.yaml") != config_seal:
            raise BadInput(f"{shown(launcher_path)} was not made from {shown(config_path)}; delete it and the same command makes it again")
        is_local = capabilities.reads_local_files(config["execution"]["type"])
        found = gathering.gather(config, request.env_folder(config_path), _environment(), reads_local_files=is_local)
        found.require()
        found.apply(_environment())
        before = submitted_before(data)
        if before is None:
            check_checkpoint(data)
            found.check(lenient=True)
            check_executor(data)
        console.say("Starting evaluation...")
        log = run / "logs" / "launcher.log" if run else None
        if log:
            files.make_folder(log.parent)
        submitting = None
        if data["execution"]["type"] == "slurm":
            cluster, named = connection.of_config(config), list(references.users(data))
            submitting = submission.Submitting(cluster, run, seal, keep_partial, named)
            console.say(planning.cost(config))
        # The process executor goes on with its own invocation: killed half-way, its jobs may not be running yet. On Slurm each job that is
        # there is found on the cluster.
        again = before is None or data["execution"]["type"] == "process"
        invocation = api.run_eval(data, log, submitting) if again else str(before)
        stopping_points.here("before-submission")
        document = {
            "made_by": MADE_BY,
            "made_from": {"launcher.yaml": seal},
            "invocation_id": invocation,
            "executor": data["execution"]["type"],
            **({"cluster": submitting.cluster.document()} if submitting else {}),
            **_jobs(data, invocation, run, submitting),
        }
        files.write_json(out, document, "submission")
    announce(document, run, before is not None)
    if found.export and wandb_server.WANDB not in auto_export.destinations(data):
        of_run = f" RUN={run.name}" if run else ""
        console.info(f"scores go to W&B from this machine when the tasks have ended: by `make eval{of_run}` or `make export{of_run}`")


def announce(document: dict[str, Any], run: Path | None, before: bool) -> None:
    """The lines that a person waits for: the invocation, and how to look at it."""
    console.done(f"Evaluation {'found, submitted before' if before else 'submitted'}: {document['invocation_id']}")
    console.say(f"Check status: nemo-evaluator-launcher status {document['invocation_id']}")
    if run:
        console.say(f"          or: make status RUN={run.name}")


def submitted_before(data: dict[str, Any]) -> str | None:
    """The invocation whose jobs lie in this launcher config's folder, though submission.json is gone or was never written.

    Raises BadInput when those jobs were made from another launcher config.
    """
    folder = Path(data["execution"]["output_dir"])
    invocation: str | None = None
    if data["execution"]["type"] == "process":
        if (plan := process_jobs.read(folder / process_jobs.PLAN)) is None:
            return None
        invocation = str(plan["invocation_id"])
        ran = yaml_files.load(files.read_text(folder / plan["tasks"][0]["dir"] / "run_config.yml"))
        config = ran["metadata"]["launcher_resolved_config"]
    elif folder.is_dir():
        from nemo_evaluator_launcher.common.execdb import ExecutionDB

        for job in ExecutionDB().get_all_jobs().values():
            if Path(str(job.data.get("output_dir"))).is_relative_to(folder):
                invocation, config = job.invocation_id, job.config
    if invocation and config != data:
        raise BadInput(
            f"the jobs in {shown(folder)} were submitted with another launcher config; leave RUN out to start a new run "
            "(`nemo-evaluator-launcher status " + invocation + "` shows them)"
        )
    return invocation


def check_checkpoint(data: dict[str, Any]) -> None:
    """Raise BadInput for a checkpoint that this machine is to serve and does not have. On a cluster on_cluster/prepare.sh looks."""
    path = data["deployment"].get("checkpoint_path")
    if data["execution"]["type"] in ("process", "local") and path and Path(path).is_absolute() and not Path(path).exists():
        raise BadInput(f"deployment.checkpoint_path: {path} does not exist on this machine; check where the model is, or the PROFILE")


def check_executor(data: dict[str, Any]) -> None:
    """Raise Unreachable when Docker is asked for and does not answer."""
    if data["execution"]["type"] != "local":
        return
    mend = "start Docker, or use CONFIG=local without a PROFILE, which needs no container"
    if shutil.which("docker") is None:
        raise Unreachable(f"executor docker: there is no docker command on this machine; {mend}")
    try:
        answer = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=DOCKER_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise Unreachable(f"executor docker: the Docker daemon did not answer within {DOCKER_TIMEOUT} s; {mend}") from None
    if answer.returncode:
        reason = (answer.stderr.strip().splitlines() or [f"docker info: exit code {answer.returncode}"])[-1]
        raise Unreachable(f"executor docker: no Docker daemon answers ({reason}); {mend}")


@contextmanager
def only_one(run: Path | None) -> Iterator[None]:
    """Hold the run's lock: of two terminals on one run, one submits and the other waits and finds the submission."""
    if run is None:
        yield
        return
    if not run.is_dir():
        raise BadInput(f"{shown(run)}: no such run; `make runs` lists them")
    try:
        handle = (run / ".lock").open("w")
    except OSError as error:
        raise StepFailed(
            f"cannot write {shown(run / '.lock')}: {error.strerror}; mend the permissions, then give the same command"
        ) from error
    with handle as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.info(f"another terminal is submitting {run.name}: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise StepFailed(f"cannot lock {shown(run / '.lock')}: {error.strerror}; then give the same command") from error
            # Some cluster filesystems are mounted without locks. On Slurm a lock on the cluster guards all the same.
            console.notice(f"{shown(run.parent)} lies on a filesystem without locks: submit a run from one terminal at a time")
        yield


def _environment() -> Any:
    import os

    return os.environ


def _jobs(data: dict[str, Any], invocation: str, run: Path | None, submitting: submission.Submitting | None) -> dict[str, Any]:
    """submitted_at and jobs, as the launcher's database has them: a submission.json that is made again comes out the same."""
    from nemo_evaluator_launcher.common.execdb import ExecutionDB

    jobs, times = [], []
    for index, entry in enumerate(data["evaluation"]["tasks"]):
        name, job_id = entry["name"], f"{invocation}.{index}"
        job = ExecutionDB().get_job(job_id)
        if job is None:
            raise StepFailed(f"the launcher's job database has no {job_id}; give the same command again")
        times.append(job.timestamp)
        document = {
            "task": name,
            "index": index,
            "harness": catalogue.find(name).harness if catalogue.is_known(name) else "unlisted",
            "job_id": job_id,
            "slurm_job_id": job.data.get("slurm_job_id"),
            "remote_dir": job.data.get("remote_rundir_path"),
            "job_dir": job.data.get("output_dir"),
        }
        if submitting:
            folder = submitting.folders[index].name
            document["job_dir"] = str(run / "jobs" / folder) if run else None
            document["job_name"] = submitting.names[index]
            document["samples"] = job_values.samples(data, entry)
        jobs.append(document)
    return {"submitted_at": run_folder.as_text(min(times)), "jobs": jobs}
