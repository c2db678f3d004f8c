"""Runs an evaluation in Docker containers of this machine. The launcher writes the jobs, a supervisor runs them."""

import contextlib
import dataclasses
import os
import re
import shlex
import types
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from helpers.common.errors import BadInput, StepFailed
from helpers.credentials.auto_export import WandbExport
from helpers.executors import containers, job_folder, unquoted
from helpers.executors.base import Document, Handover, ImageUse, Submitted
from helpers.executors.docker import daemon, supervisor
from helpers.executors.docker.description import DESCRIPTION
from helpers.executors.local import refuse_other
from helpers.executors.process import jobs as process_jobs
from helpers.executors.process import start
from helpers.executors.process.executor import Process
from helpers.launcher import api

# Characters that the launcher's scripts cannot hold between double quotes, or that `docker run --volume` splits at.
UNQUOTABLE = re.compile(r'["$`\\:\n]')


class Docker(Process):
    """See helpers/executors/base.py: as processes of this machine, but each task has its own containers, also for its model server."""

    description = DESCRIPTION
    picks_tasks = True
    wandb_export = WandbExport.NEVER
    things = "process or container", "processes and containers"

    def complete(self, data: Document, run: Path | None) -> None:
        """Give the jobs a folder of this run alone, label their containers, and have the harness report its progress.

        Raises BadInput for a value that the launcher's scripts cannot hold.
        """
        super().complete(data, run)
        execution = data["execution"]
        if found := UNQUOTABLE.search(execution["output_dir"]):
            raise BadInput(
                f"{execution['output_dir']} contains {found[0]!r}, which a folder of Docker jobs cannot have in its path; move it"
            )
        unquoted.refuse({**data, "execution": {"mounts": execution.get("mounts")}})
        execution["extra_docker_args"] = f"{execution.get('extra_docker_args') or ''} {daemon.LABELLED}".strip()
        containers.count_requests(data)

    def images(self, config: Mapping[str, Any], _wandb_mode: str) -> Iterator[ImageUse]:
        return containers.uses(config)

    def let_evaluation_read(self, data: Document, folder: str) -> None:
        """Mount it read-only. The launcher has no mounts of the evaluation here; these arguments go to the model server too."""
        arguments = data["execution"].get("extra_docker_args") or ""
        data["execution"]["extra_docker_args"] = f"{arguments} --volume {shlex.quote(f'{folder}:{folder}:ro')}".strip()

    def squash_obstacle(self, _config: Mapping[str, Any]) -> str:
        return "executor docker pulls its images itself"

    def submitted_before(self, data: Document) -> str | None:
        if not (self.folder_of(data) / process_jobs.PLAN).exists():
            return None  # before there is a plan, nothing was started
        found = api.invocation_in(self.folder_of(data))
        if found is None:
            return None
        invocation, config = found
        refuse_other(data, config, invocation)
        return invocation

    def check(self, data: Document) -> None:
        super().check(data)
        daemon.check(with_gpus=data["deployment"]["type"] != "none")

    def submit(self, handover: Handover, before: str | None) -> Submitted:
        """Have the launcher write the jobs, unless it has, and start their supervisor."""
        invocation = before or api.run_eval(handover.data, handover.log, _only_written())
        submitted = Submitted(invocation, *api.recorded_jobs(invocation, len(handover.data["evaluation"]["tasks"])))
        jobs = Path(submitted.jobs[0]["job_dir"]).parent
        if not before:
            _write_plan(jobs, handover.data, submitted)
        start.start_again(jobs, handover.owner)
        return submitted

    def begin(self, submission: Document) -> None:
        """Start a supervisor for the open tasks, which stops when this process ends. Raises Unreachable when no Docker daemon answers."""
        if self.resumes_here(submission):
            daemon.check(with_gpus=False)
        super().begin(submission)

    def cancel(self, submission: Document, jobs: Sequence[Document]) -> list[str]:
        """Stop these tasks with their containers; when no other is open, everything."""
        still = [job for job in submission["jobs"] if process_jobs.is_open(Path(job["job_dir"]))]
        if all(job in jobs for job in still):
            return super().cancel(submission, jobs)
        chosen = [job for job in still if job in jobs]
        for job in chosen:
            folder = Path(job["job_dir"])
            process_jobs.mark_stopped([folder], process_jobs.CANCELLED_CODE)  # first, so that the supervisor goes on to the next task
            supervisor.kill(job["job_id"])
            daemon.remove(folder)
            if process_jobs.is_open(folder):
                raise StepFailed(f"{folder.name} started while it was cancelled; run the same command again")
        return [f"{Path(job['job_dir']).name}: stopped" for job in chosen]

    def folder_of(self, data: Document) -> Path:
        """The launcher makes a folder TIME-INVOCATION for each attempt; only one that was finished has a plan."""
        output = super().folder_of(data)
        return next(output.glob(f"*/{process_jobs.PLAN}"), output / process_jobs.PLAN).parent

    def end(self, jobs: Path, code: int) -> int:
        """The processes first, so that none starts another container. Before there is a plan, nothing was started."""
        return super().end(jobs, code) + daemon.remove(jobs) if (jobs / process_jobs.PLAN).exists() else 0


@contextlib.contextmanager
def _only_written() -> Iterator[None]:
    """With a launcher that writes and records its jobs, for their owner alone, and starts none of their scripts.

    It writes `export NAME="value"` for secrets, in which a shell expands `$`, backticks and backslashes: here each value is quoted.
    It reads the catalogue of a task's own container from a registry: here nothing is contacted.
    """
    from nemo_evaluator_launcher.api import functional
    from nemo_evaluator_launcher.executors.local import executor as stock

    from helpers.launcher import replacements

    generate, find = stock.generate_secrets_env, partial(replacements.task_definition, stock.get_task_definition_for_job)

    def secrets(groups: dict[str, Any]) -> Any:
        made = generate(groups)
        return dataclasses.replace(made, secrets_content=replacements.quoted(made, groups))

    umask = os.umask(0o077)
    try:
        with replacements.within(
            (stock, "subprocess", types.SimpleNamespace(Popen=lambda *_, **__: types.SimpleNamespace(poll=lambda: 0))),
            (stock, "generate_secrets_env", secrets),
            (stock, "get_task_definition_for_job", find),
            (functional, "get_task_definition_for_job", find),
        ):
            yield
    finally:
        os.umask(umask)


def _write_plan(jobs: Path, data: Document, submitted: Submitted) -> None:
    tasks = []
    for job, entry in zip(submitted.jobs, data["evaluation"]["tasks"], strict=True):
        folder = Path(job["job_dir"])
        (folder / "logs").mkdir(exist_ok=True)
        (folder / "artifacts").mkdir(exist_ok=True)
        (folder / "artifacts").chmod(0o777)  # as the launcher does: a container may have a user of its own
        job_folder.stage(folder, "pre-start")
        tasks.append({"name": entry["name"], "job_id": job["job_id"], "dir": folder.name})
    plan = {
        "invocation_id": submitted.invocation_id,
        "parallel": data["execution"].get("mode") == "parallel",
        "served": data["deployment"]["type"] != "none",
        "tasks": tasks,
    }
    start.write_plan(jobs, plan, "helpers.executors.docker.supervisor")


EXECUTOR = Docker()
