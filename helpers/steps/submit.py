"""From config.yaml to launcher.yaml to submission.json: what the launcher gets, and submitting it exactly once."""

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.common import console, files, run_folder, stopping_points
from helpers.common.errors import BadInput, StepFailed
from helpers.common.files import shown
from helpers.config import catalogue, tokenizers
from helpers.credentials import auto_export, gathering, wandb_server
from helpers.credentials.auto_export import WandbExport
from helpers.executors import registry
from helpers.executors.base import Handover
from helpers.images import references
from helpers.launcher import launcher_yaml
from helpers.steps import lineage, request, squash_images

MADE_BY = "submit_eval.py"


def prepare(config_path: str, model_path: str | None, out: str) -> None:
    """Write launcher.yaml: the compiled config without its run section, ready for the launcher.

    `model_path`: model.json, with the value of each `${art:…}`; None for a config that has none. Raises BadInput for an execution.type that
    nothing can be submitted to, and for a `${art:…}` that model.json does not have.
    """
    config, seal, _ = files.read_yaml(config_path, "config")
    made_from, models, tokenizer = {"config.yaml": seal}, {}, None
    if model_path:
        model = files.read_json(model_path, "model")
        made_from["model.json"], models, tokenizer = model["seal"], model["models"], (model.get("checkpoint") or {}).get("tokenizer")
        if model.get("made_from", {}).get("config.yaml", seal) != seal:
            raise BadInput(f"{shown(model_path)} was not made from {shown(config_path)}; delete it and the same command makes it again")
    if out != "-" and Path(out).exists() and files.read_yaml(out, "launcher")[2] == made_from:
        return
    run = run_folder.run_of(config_path)
    paths, wandb = squash_images.paths_of(config_path), gathering.recorded(config_path)
    data = launcher_config(config, run, models=models, tokenizer=tokenizer, paths=paths, wandb=wandb)
    why = "the project was moved, the W&B project of the environment is another, or evalmake changed since"
    lineage.refuse_other(out, files.yaml_seal(data, made_from), why)
    files.write_yaml(out, data, "launcher", MADE_BY, made_from)


def launcher_config(
    config: dict[str, Any],
    run: Path | None,
    *,
    models: Mapping[str, Mapping[str, Any]] | None = None,
    tokenizer: str | None = None,
    paths: Mapping[str, str] | None = None,
    wandb: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What the launcher gets for a compiled config of the run folder `run`.

    `models`: the value of each `${art:…}`, as in model.json; `tokenizer`: the folder that has the checkpoint's tokenizer, the checkpoint's
    own unless said; `paths`: the .sqsh path of each image that has one; `wandb`: that section of
    credentials.json. Raises BadInput for what cannot be submitted.
    """
    executor, paths, wandb = registry.get(config["execution"]["type"]), paths or {}, wandb or {}
    mode = str(wandb.get("mode"))
    data = launcher_yaml.make(config, models or {})
    checkpoint = str(data["deployment"].get("checkpoint_path") or "")
    if checkpoint and not executor.description.logs_in_over_ssh:
        checkpoint = str(files.ROOT / checkpoint)
    for holder, key in tokenizers.of_checkpoint(data):
        holder[key] = tokenizer or checkpoint
    for folder in tokenizers.folders(data):
        inside = checkpoint and f"{folder}/".startswith(f"{checkpoint.rstrip('/')}/")
        executor.let_evaluation_read(data, checkpoint if inside else folder)
    exported = auto_export.by_launcher(config, mode, executor.wandb_export)
    launcher_yaml.complete_export(data, exported, wandb, in_jobs=executor.wandb_export is WandbExport.ONE_JOB_A_TASK)
    uses = list(executor.images(config, mode))
    pulled = {use.reference: references.parse(use.reference).for_pyxis for use in uses} if executor.has_pyxis else {}
    images = {use.key: {**pulled, **paths}.get(use.reference, use.reference) for use in uses}
    launcher_yaml.put_images(data, {use.key: images[use.key] for use in uses if images[use.key] != use.reference})
    executor.complete(data, run)
    return data


def submit(config_path: str, launcher_path: str, out: str, keep_partial: bool = False, owner: int | None = None) -> None:
    """Submit launcher.yaml and write submission.json, unless that exists. A submission whose record was lost is found again.

    `keep_partial`: when one task is refused, the jobs of the others stay; `owner`: the pid whose end stops jobs of this machine. Raises
    BadInput when something is missing, StepFailed when a job is refused, Unreachable when Docker or the cluster does not answer.
    """
    run = run_folder.run_of(out)
    with only_one(run):
        if out != "-" and Path(out).exists():
            files.read_json(out, "submission")
            console.info(f"{shown(out)} exists: nothing is submitted again")
            return
        if run and (run / "request.json").exists() and files.read_json(run / "request.json", "request")["mode"] == "dry-run":
            raise BadInput(f"{run.name} is a dry run, which is never submitted; `make eval` with the same variables starts a run")
        config, config_seal, _ = files.read_yaml(config_path, "config")
        data, seal, made_from = files.read_yaml(launcher_path, "launcher")
        if made_from and made_from.get("config.yaml") != config_seal:
            raise BadInput(f"{shown(launcher_path)} was not made from {shown(config_path)}; delete it and the same command makes it again")
        executor = registry.get(config["execution"]["type"])
        found = gathering.gather(config, request.env_folder(config_path), os.environ, reads_local_files=executor.reads_local_files)
        found.require()
        found.apply(os.environ)
        before = executor.submitted_before(data)
        if before is None:
            executor.check(data)
            found.check(lenient=True)
        console.say("Starting evaluation...")
        log = run / "logs" / "launcher.log" if run else None
        if log:
            files.make_folder(log.parent)
        images = list(dict.fromkeys(use.reference for use in executor.images(data, str(gathering.recorded(config_path).get("mode")))))
        submitted = executor.submit(Handover(config, data, seal, run, keep_partial, images, log, owner), before)
        stopping_points.here("before-submission")
        document = {
            "made_by": MADE_BY,
            "made_from": {"launcher.yaml": seal},
            "invocation_id": submitted.invocation_id,
            "executor": executor.description.name,
            **({"cluster": submitted.cluster} if submitted.cluster else {}),
            "submitted_at": submitted.submitted_at,
            "jobs": [_job(index, entry["name"], submitted.jobs[index]) for index, entry in enumerate(data["evaluation"]["tasks"])],
        }
        files.write_json(out, document, "submission")
    announce(document, run, before is not None)
    if found.export and wandb_server.WANDB not in auto_export.destinations(data):
        of_run = f" RUN={run.name}" if run else ""
        console.info(f"the scores go to W&B from this machine: when the tasks have ended, run `make eval{of_run}` or `make export{of_run}`")


def announce(document: dict[str, Any], run: Path | None, before: bool) -> None:
    """Print the invocation, and how to ask for its status."""
    console.done(f"Evaluation {'was already submitted' if before else 'submitted'}: {document['invocation_id']}")
    console.say(f"Check status: nemo-evaluator-launcher status {document['invocation_id']}")
    if run:
        console.say(f"          or: make status RUN={run.name}")


@contextmanager
def only_one(run: Path | None) -> Iterator[None]:
    """Hold the run's lock: of two terminals with one run, one submits, and the other waits and finds the submission."""
    if run is None:
        yield
        return
    if not run.is_dir():
        raise BadInput(f"{shown(run)}: no such run; `make runs` lists them")
    try:
        handle = (run / ".lock").open("w")
    except OSError as error:
        raise StepFailed(f"cannot write {shown(run / '.lock')}: {error.strerror}; {run_folder.FREE_OR_FIX}") from error
    with handle as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.info(f"another terminal is submitting {run.name}: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise StepFailed(f"cannot lock {shown(run / '.lock')}: {error.strerror}; fix that, then run the same command") from error
            # Some cluster filesystems are mounted without locks. On Slurm there is a second lock, on the cluster.
            console.notice(f"{shown(run.parent)} is on a filesystem without locks: submit a run from one terminal at a time")
        yield


def _job(index: int, task: str, job: dict[str, Any]) -> dict[str, Any]:
    harness = catalogue.find(task).harness if catalogue.is_known(task) else "unlisted"
    return {"task": task, "index": index, "harness": harness, "slurm_job_id": None, "remote_dir": None, "job_dir": None, **job}
