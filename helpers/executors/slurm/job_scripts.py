"""The launcher's Slurm executor, with a submission of ours in place of its own ssh and sbatch calls. Importing it costs 0.9 s.

nemo-evaluator-launcher 0.2.6 writes the job scripts and its job database. Four of its names are replaced meanwhile, each checked by a test
(tests/helpers/executors/slurm/test_job_scripts.py):

- `load_tasks_mapping` of executors/slurm/executor.py: our catalogue, which is read once and not for each task (1.4 s per call);
- `get_task_definition_for_job` there and in api/functional.py: the stock one reads the catalogue of a task's own container from a registry;
- `_generate_auto_export_section`: the W&B run that an export job writes to gets an id of ours.
"""

import contextlib
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from nemo_evaluator_launcher.api import functional
from nemo_evaluator_launcher.common import env_vars, helpers
from nemo_evaluator_launcher.common.auxiliary_deployments import build_aux_deployment_states
from nemo_evaluator_launcher.common.execdb import ExecutionDB, JobData, generate_job_id
from nemo_evaluator_launcher.executors.registry import register_executor
from nemo_evaluator_launcher.executors.slurm import executor as stock
from omegaconf import DictConfig, OmegaConf

from helpers.credentials import wandb_server
from helpers.executors.slurm.submission import Submission
from helpers.launcher import api, replacements


@register_executor("slurm")
class OnceExecutor(stock.SlurmExecutor):  # type: ignore[misc]
    """The stock executor, but it submits each job of a run exactly once. Its jobs are recorded as the stock one records them."""

    submission: ClassVar[Submission]

    @staticmethod
    def execute_eval(cfg: DictConfig, dry_run: bool = False) -> str:
        """Write the job scripts, bring them to the cluster, record the jobs, and return the invocation id.

        Given again after a kill, it adopts the jobs that exist. Raises ValueError, RuntimeError or AttributeError for a config that the
        launcher refuses, and as Submission.bring.
        """
        if dry_run:
            return str(stock.SlurmExecutor.execute_eval(cfg, dry_run=True))
        submission = OnceExecutor.submission
        with tempfile.TemporaryDirectory() as scratch:
            rundir = Path(scratch) / f"{submission.timestamp}-{submission.invocation_id}"
            folders, images = write(cfg, rundir, submission.invocation_id)
            with api.talking_to_the_person():
                submission.bring(rundir, folders, str(cfg.execution.output_dir), stock._collect_mount_paths(cfg))  # noqa: SLF001
        submission.submitted_at = time.time()
        for index, (slurm_job_id, folder, image) in enumerate(zip(submission.ids, submission.remote_folders, images, strict=True)):
            data = {
                "slurm_job_id": slurm_job_id,
                "remote_rundir_path": folder,
                "hostname": cfg.execution.hostname,
                "username": cfg.execution.username,
                "eval_image": image,
            }
            job_id = generate_job_id(submission.invocation_id, index)
            config = OmegaConf.to_object(cfg)
            ExecutionDB().write_job(JobData(submission.invocation_id, job_id, submission.submitted_at, "slurm", data, config))
        return submission.invocation_id


@contextlib.contextmanager
def submitting(submission: Submission) -> Iterator[None]:
    """The launcher as it submits this submission, which then holds the ids."""
    OnceExecutor.submission = submission
    with replaced():
        yield


def texts(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The name of each task of a launcher config and the sbatch script that would run it."""
    cfg = OmegaConf.create(data)
    with replaced():
        for index, entry in enumerate(cfg.evaluation.tasks):
            name = helpers.get_unique_task_name(entry.name, index)
            script, _, _ = _script(cfg, index, Path(cfg.execution.output_dir) / "INVOCATION" / name, "INVOCATION")
            yield name, script.cmd


def write(cfg: DictConfig, rundir: Path, invocation_id: str) -> tuple[list[Path], list[str]]:
    """Write a folder for each task, for its owner alone; returns the folders and the task's images.

    Raises ValueError for a config that the launcher refuses, and for unlisted tasks and pre_cmd that the user did not allow.
    """
    folders, images, unlisted, is_unsafe = [], [], [], False
    was = os.umask(0o077)
    try:
        for index, entry in enumerate(cfg.evaluation.tasks):
            folder = rundir / helpers.get_unique_task_name(entry.name, index)
            for part in ("logs", "artifacts"):
                (folder / part).mkdir(parents=True)
            remote = Path(cfg.execution.output_dir) / rundir.name / folder.name
            script, image, is_listed = _script(cfg, index, remote, invocation_id)
            if (cfg.execution.get("num_instances") or 1) > 1:
                _write_proxy(cfg, folder)
            (folder / "run.sub").write_text(script.cmd.rstrip("\n") + "\n", encoding="utf-8")
            if script.secrets_env_result:
                (folder / ".secrets.env").write_text(secrets(cfg, index, script.secrets_env_result), encoding="utf-8")
            folders.append(folder)
            images.append(image)
            is_unsafe = is_unsafe or script.is_potentially_unsafe
            if not is_listed and not helpers.is_local_image_path(image):
                unlisted.append(entry.name)
    finally:
        os.umask(was)
    helpers.check_unlisted_tasks_safeguard(unlisted, dry_run=False)
    if is_unsafe and os.environ.get(api.TRUST_PRE_CMD) != "1":
        raise ValueError(f"the config has a pre_cmd or another command of its own; `export {api.TRUST_PRE_CMD}=1` if you trust it")
    return folders, images


def _script(cfg: DictConfig, index: int, remote: Path, invocation_id: str) -> tuple[Any, str, bool]:
    """The script of a task as the launcher makes it, the task's image, and whether a catalogue lists the task."""
    entry = cfg.evaluation.tasks[index]
    found = stock.get_task_definition_for_job(
        task_query=entry.name,
        base_mapping=stock.load_tasks_mapping(),
        container=entry.get("container"),
        endpoint_type=entry.get("endpoint_type"),
    )
    image = entry.container if "container" in entry else found["container"]
    job_id = f"{invocation_id}.{index}"
    script = stock._create_slurm_sbatch_script(cfg, entry, image, remote, invocation_id, job_id, index)  # noqa: SLF001
    return script, image, not found.get("is_unlisted", False)


def _write_proxy(cfg: DictConfig, folder: Path) -> None:
    kind = (cfg.execution.get("proxy") or {}).get("type", "haproxy")
    if kind != "haproxy":
        raise ValueError(f"execution.proxy.type {kind}: only haproxy is supported")
    text = stock._generate_haproxy_config_with_placeholders(cfg)  # noqa: SLF001
    for name in ("proxy.cfg.template", "proxy.cfg"):
        (folder / name).write_text(text, encoding="utf-8")


def secrets(cfg: DictConfig, index: int, made: Any) -> str:
    """The content of a task's .secrets.env: what the launcher made, but each value quoted for the shell that reads the file.

    The launcher writes `export NAME="value"`, in which the shell expands `$`, backticks and backslashes.
    """
    entry = cfg.evaluation.tasks[index]
    groups = {
        helpers.get_unique_task_name(entry.name, index): env_vars.collect_eval_env_vars(cfg, entry, helpers.get_api_key_name(cfg)),
        "deployment": env_vars.collect_deployment_env_vars(cfg),
        "export": env_vars.collect_exporters_env_vars(cfg),
        **{one.name: one.env_vars for one in build_aux_deployment_states(cfg)},
    }
    return replacements.quoted(made, groups)


def replaced() -> contextlib.AbstractContextManager[None]:
    """The launcher with our names in it, while this is entered."""
    find = partial(replacements.task_definition, stock.get_task_definition_for_job)
    section = partial(export_section, vars(stock)["_generate_auto_export_section"])
    return replacements.within(
        (functional, "get_task_definition_for_job", find),
        (stock, "get_task_definition_for_job", find),
        (stock, "load_tasks_mapping", api.task_mapping),
        (stock, "_generate_auto_export_section", section),
    )


def export_section(made: Callable[..., str], *, cfg: Any, job_id: str, remote_task_subdir: Path, **others: Any) -> str:
    """The launcher's _generate_auto_export_section, with the id of the W&B run: without one its exporter makes another run each time.

    wandb's SDK takes the id from the environment.
    """
    own = OmegaConf.merge(cfg, {})
    command = own.execution.auto_export.get("launcher_install_cmd")
    if command:  # launcher.yaml has one (launcher_yaml.py), unless somebody took it out
        run = shlex.quote(wandb_server.run_id(job_id.rpartition(".")[0], remote_task_subdir.name))
        own.execution.auto_export.launcher_install_cmd = f"export WANDB_RUN_ID={run} WANDB_RESUME=allow\n    {command}"
    return made(cfg=own, job_id=job_id, remote_task_subdir=remote_task_subdir, **others)
