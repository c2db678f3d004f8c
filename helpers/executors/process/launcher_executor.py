"""The executor that the launcher knows as `process`: it writes the jobs folder of an evaluation, and has its supervisor started.

Its jobs are written to the launcher's job database as jobs of the launcher's own `local` executor, and have the same files, so that the
stock `nemo-evaluator-launcher status|info|logs|export` read them. Imported where something is submitted: it imports the launcher (0.9 s).
"""

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from nemo_evaluator_launcher.common.execdb import ExecutionDB, JobData, generate_invocation_id, generate_job_id
from nemo_evaluator_launcher.common.helpers import get_eval_factory_config, get_unique_task_name
from nemo_evaluator_launcher.executors.base import BaseExecutor
from nemo_evaluator_launcher.executors.local.executor import LocalExecutor
from nemo_evaluator_launcher.executors.registry import register_executor
from omegaconf import DictConfig, OmegaConf

from helpers.common.errors import BadInput
from helpers.common.files import write_text
from helpers.config import tasks
from helpers.credentials import auto_export
from helpers.executors import job_folder
from helpers.executors.process import commands, start
from helpers.executors.process import jobs as process_jobs
from helpers.launcher import api

# With these the harness counts its requests in artifacts/progress, and a task that runs again asks only for the answers it lacks.
# It also posts each count to a URL: the supervisor's, because without one nemo-evaluator 0.2.8 posts to port 8000, where a model may be.
ADAPTER = {"use_progress_tracking": True, "progress_tracking_url": f"${process_jobs.PROGRESS_URL}", "use_caching": True}


@register_executor("process")
class ProcessExecutor(BaseExecutor):  # type: ignore[misc]
    """The launcher's executor interface."""

    @staticmethod
    def execute_eval(cfg: DictConfig, dry_run: bool = False) -> str:
        """Start the evaluation in `execution.output_dir` (a folder of this run alone) and return its invocation id.

        It writes the plan, then the job database, then starts the supervisor: after a kill in between, the same call continues with the
        same invocation. Raises BadInput, or StepFailed when the supervisor does not start.
        """
        config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
        jobs = Path(config["execution"]["output_dir"])
        plan = job_folder.read(jobs / process_jobs.PLAN)
        if plan is None:
            plan = make_plan(cfg, config, generate_invocation_id())
            if dry_run:
                return str(plan["invocation_id"])
            write_jobs(jobs, plan)
        record_jobs(jobs, plan, config)
        owner = os.environ.get(process_jobs.OWNER, "")
        start.start_again(jobs, int(owner) if owner.isdigit() else None)
        return str(plan["invocation_id"])

    get_status = staticmethod(LocalExecutor.get_status)  # which reads our files

    @staticmethod
    def kill_job(job_id: str) -> None:
        """Stop the invocation that the job belongs to: its tasks share one server and run one after another."""
        job = ExecutionDB().get_job(job_id)
        if job is None:
            raise ValueError(f"Job {job_id} not found")
        process_jobs.stop(Path(job.data["output_dir"]).parent, process_jobs.CANCELLED_CODE)


def make_plan(cfg: DictConfig, config: dict[str, Any], invocation_id: str) -> dict[str, Any]:
    """The content of plan.json, what the supervisor has to do. It names variables, and holds no value. Raises BadInput."""
    deployment, execution = config["deployment"], config["execution"]
    serving = deployment["type"] != "none"
    everywhere = config.get("env_vars") or {}
    server = None
    if serving:
        variables = {"CHECKPOINT_PATH": "checkpoint_path", "SERVED_MODEL_NAME": "served_model_name"}
        server = {
            "command": deployment["command"],
            "venv": commands.environment_of(deployment),
            "port": deployment.get("port") or 0,
            "health": deployment["endpoints"]["health"],
            "readiness_timeout": execution.get("endpoint_readiness_timeout") or 600,
            "env": {**everywhere, **(deployment.get("env_vars") or {})},
            "variables": {name: str(deployment.get(key) or "") for name, key in variables.items()},
        }
    planned = []
    for index, entry in enumerate(config["evaluation"]["tasks"]):
        task = tasks.define(entry)
        kind = tasks.endpoint_type(entry, task)
        planned.append(
            {
                "name": entry["name"],
                "job_id": generate_job_id(invocation_id, index),
                "dir": get_unique_task_name(entry["name"], index),
                "path": deployment["endpoints"][kind] if serving else None,
                "env": {**everywhere, **(config["evaluation"].get("env_vars") or {}), **(entry.get("env_vars") or {})},
                "variables": {"NEMO_EVALUATOR_DATASET_DIR": entry["dataset_dir"]} if entry.get("dataset_dir") else {},
                "run_config": run_config(cfg, index, task.full_name, kind),
                "script": script(entry, config["evaluation"]),
            }
        )
    return {
        "invocation_id": invocation_id,
        "deployment": server,
        "tasks": planned,
        "export": {
            "destinations": auto_export.destinations(config),
            "config": {"export": config.get("export") or {}},
            "env": {**everywhere, **((config.get("export") or {}).get("env_vars") or {})},
        },
    }


def run_config(cfg: DictConfig, index: int, full_name: str, kind: str) -> dict[str, Any]:
    """nemo-evaluator's run config of one task: the config's nemo_evaluator_config, and what the launcher adds for a container.

    The supervisor fills in the URL of a deployed server when it knows the port. The launcher's exporters read launcher_resolved_config.
    """
    merged: dict[str, Any] = get_eval_factory_config(cfg, cfg.evaluation.tasks[index]) or {}
    endpoint = merged.setdefault("target", {}).setdefault("api_endpoint", {})
    hosted: dict[str, Any] = {}
    if cfg.deployment.type == "none":
        hosted = OmegaConf.to_container(cfg.target.api_endpoint, resolve=True)  # type: ignore[assignment]
        for key in ("url", "api_key_name", "stream"):
            if hosted.get(key) is not None:
                endpoint.setdefault(key, hosted[key])
    endpoint.setdefault("model_id", str(hosted["model_id"] if hosted else cfg.deployment.served_model_name))
    endpoint.setdefault("type", kind)
    endpoint["adapter_config"] = {**ADAPTER, **(hosted.get("adapter_config") or {}), **(endpoint.get("adapter_config") or {})}
    settings = merged.setdefault("config", {})
    settings.setdefault("type", full_name)
    settings["output_dir"] = "artifacts"
    merged.setdefault("metadata", {})["launcher_resolved_config"] = OmegaConf.to_container(cfg, resolve=True)
    return merged


def script(entry: dict[str, Any], evaluation: dict[str, Any]) -> str:
    """The task's run.sh, which a person can read, and can run while the server runs. Raises BadInput for an untrusted pre_cmd."""
    before = entry.get("pre_cmd") or evaluation.get("pre_cmd") or ""
    after = entry.get("post_cmd") or evaluation.get("post_cmd") or ""
    if (before or after) and os.environ.get(api.TRUST_PRE_CMD) != "1":
        raise BadInput(f"task {entry['name']} has a pre_cmd or post_cmd; `export {api.TRUST_PRE_CMD}=1` if you trust it, or remove it")
    lines = [
        "#!/usr/bin/env bash",
        f"# Task {shlex.quote(entry['name'])}: run by evalmake; its server's URL is in run_config.yml.",
        'cd "$(dirname "$0")"',
    ]
    lines += [f"trap {shlex.quote(after)} EXIT"] if after else []
    lines += [before] if before else []
    lines.append(f"{shlex.quote(sys.executable)} -m nemo_evaluator.core.entrypoint run_eval --run_config run_config.yml")
    return "\n".join(lines) + "\n"


def write_jobs(jobs: Path, plan: dict[str, Any]) -> None:
    """Write the folder of each task, and last plan.json: once it exists, the jobs exist."""
    for task in plan["tasks"]:
        folder = jobs / task["dir"]
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        (folder / "artifacts").mkdir(exist_ok=True)
        write_text(folder / "run_config.yml", yaml.safe_dump(task.pop("run_config"), sort_keys=False, allow_unicode=True))
        write_text(folder / "run.sh", task.pop("script"), mode=0o755)
        if plan["deployment"]:
            link = folder / "logs" / "server_stdout.log"
            link.unlink(missing_ok=True)
            link.symlink_to("../../server.log")
        job_folder.stage(folder, "pre-start")
    if plan["export"]["destinations"]:
        write_text(jobs / "export.yml", yaml.safe_dump(plan["export"].pop("config"), sort_keys=False))
    plan["export"].pop("config", None)
    start.write_plan(jobs, plan, "helpers.executors.process.supervisor")


def record_jobs(jobs: Path, plan: dict[str, Any], config: dict[str, Any]) -> None:
    """Write the jobs that it lacks to the launcher's job database, before anything is started."""
    database = ExecutionDB()
    for task in plan["tasks"]:
        if database.get_job(task["job_id"]) is None:
            # Without a container the stock `kill` refuses; otherwise it would mark jobs as killed that keep running.
            data = {"output_dir": str(jobs / task["dir"]), "container": "", "eval_image": ""}
            database.write_job(JobData(plan["invocation_id"], task["job_id"], time.time(), "local", data, config))
