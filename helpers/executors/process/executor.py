"""Runs an evaluation as processes of this machine: no container, no cluster. The launcher writes the jobs, a supervisor runs them."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from helpers.common import console, files, yaml_files
from helpers.credentials.auto_export import WandbExport
from helpers.executors import job_folder
from helpers.executors.base import Document, Handover, Submitted
from helpers.executors.local import LocalExecutor, refuse_other
from helpers.executors.process import commands, start
from helpers.executors.process import jobs as process_jobs
from helpers.executors.process.description import DESCRIPTION
from helpers.launcher import api


class Process(LocalExecutor):
    """See helpers/executors/base.py; the jobs folder is that of helpers/executors/process/jobs.py."""

    description = DESCRIPTION
    jobs_outlive_us = False
    wandb_export = WandbExport.ALWAYS
    things: ClassVar[tuple[str, str]] = "process", "processes"  # what `end` stops: one, and several

    def complete(self, data: Document, run: Path | None) -> None:
        super().complete(data, run)
        if data["deployment"].get("command"):
            data["deployment"]["command"] = commands.here(data["deployment"])

    def check(self, data: Document) -> None:
        super().check(data)
        if data["deployment"]["type"] != "none":
            commands.check(data["deployment"])

    def submitted_before(self, data: Document) -> str | None:
        folder = self.folder_of(data)
        if (plan := job_folder.read(folder / process_jobs.PLAN)) is None:
            return None
        ran = yaml_files.load(files.read_text(folder / plan["tasks"][0]["dir"] / "run_config.yml"))
        refuse_other(data, ran["metadata"]["launcher_resolved_config"], plan["invocation_id"])
        return str(plan["invocation_id"])

    def submit(self, handover: Handover, _before: str | None) -> Submitted:
        if handover.owner:
            os.environ[process_jobs.OWNER] = str(handover.owner)
        invocation = api.run_eval(handover.data, handover.log, _registered())
        return Submitted(invocation, *api.recorded_jobs(invocation, len(handover.data["evaluation"]["tasks"])))

    def abandon(self, handover: Handover) -> str:
        """Stop what was started; the tasks stay open."""
        self.end(self.folder_of(handover.data), process_jobs.INTERRUPTED_CODE)
        return ""

    def rows(self, submission: Document) -> list[Document]:
        supervised = process_jobs.is_supervised(jobs_of(submission))
        return [self.row(job, process_jobs.state(Path(job["job_dir"]), supervised)) for job in submission["jobs"]]

    def resumes_here(self, submission: Document) -> bool:
        jobs = jobs_of(submission)
        return not process_jobs.is_supervised(jobs) and bool(process_jobs.open_tasks(jobs))

    def begin(self, submission: Document) -> None:
        """Start a supervisor for the open tasks, which stops when this process ends."""
        if left := start.start_again(jobs_of(submission), os.getpid()):
            console.info(f"resuming what was interrupted: {', '.join(task['name'] for task in left)}")

    def finish(self, submission: Document) -> None:
        # After the last task the supervisor still stops the model server, and exports.
        while process_jobs.is_supervised(jobs_of(submission)):
            time.sleep(0.05)

    def stop(self, submission: Document) -> None:
        """Stop everything; the tasks stay open."""
        self.end(jobs_of(submission), process_jobs.INTERRUPTED_CODE)

    def cancel(self, submission: Document, _jobs: Sequence[Document]) -> list[str]:
        """Stop everything: the tasks share one model server and run one after another."""
        return self._cancelled(jobs_of(submission))

    def cancel_unrecorded(self, handover: Handover) -> list[str] | None:
        jobs = self.folder_of(handover.data)
        return self._cancelled(jobs) if (jobs / process_jobs.PLAN).exists() else None

    def resume(self, submission: Document, _rows: Sequence[Document], again: Sequence[int]) -> dict[int, str]:
        """Open the tasks again; `make eval` runs them."""
        for job in submission["jobs"]:
            if job["index"] in again:
                process_jobs.reopen(Path(job["job_dir"]))
        return dict.fromkeys(again, "")

    def folder_of(self, data: Document) -> Path:
        """The jobs folder of a launcher config: where plan.json is or will be."""
        return Path(data["execution"]["output_dir"])

    def end(self, jobs: Path, code: int) -> int:
        """Stop everything of a jobs folder, and give open tasks the exit `code`; returns how many things were stopped."""
        return process_jobs.stop(jobs, code)

    def _cancelled(self, jobs: Path) -> list[str]:
        number = self.end(jobs, process_jobs.CANCELLED_CODE)
        return [f"{number} {self.things[number > 1]} stopped; nothing is left running"] if number else []


@contextlib.contextmanager
def _registered() -> Iterator[None]:
    """With our executor registered at the launcher, which takes 0.9 s to import."""
    from helpers.executors.process import launcher_executor  # noqa: F401  registers itself

    yield


def jobs_of(submission: Document) -> Path:
    """The jobs folder of a submission."""
    return Path(submission["jobs"][0]["job_dir"]).parent


EXECUTOR = Process()
